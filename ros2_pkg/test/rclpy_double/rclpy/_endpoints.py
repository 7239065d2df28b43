"""A node's publishers, subscriptions, services, clients, timers and guard conditions: made, and destroyed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from rosidl_double.distro import since
from rosidl_double.messages import is_message

from rclpy import _events
from rclpy._graph import Caller, Domain, Endpoint, Reader, Server, Writer
from rclpy._names import expand_topic_name, validate_topic_name
from rclpy._rclpy_pybind11 import InvalidHandle
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.client import Client
from rclpy.guard_condition import GuardCondition
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, qos_profile_services_default
from rclpy.service import Service
from rclpy.subscription import Subscription
from rclpy.timer import Rate, Timer

E = TypeVar("E", bound=Endpoint)


class Endpoints:
    """A part of :class:`rclpy.node.Node`."""

    _domain: Domain
    context: Any

    def _begin_endpoints(self) -> None:
        self._publishers: list[Publisher] = []
        self._subscriptions: list[Subscription] = []
        self._services: list[Service] = []
        self._clients: list[Client] = []
        self._timers: list[Timer] = []
        self._guards: list[GuardCondition] = []
        self._waitables: list[Any] = []
        self._default_callback_group = MutuallyExclusiveCallbackGroup()
        self._rate_group = ReentrantCallbackGroup()

    @property
    def default_callback_group(self) -> Any:
        return self._default_callback_group

    publishers = property(lambda self: iter(list(self._publishers)))
    subscriptions = property(lambda self: iter(list(self._subscriptions)))
    services = property(lambda self: iter(list(self._services)))
    clients = property(lambda self: iter(list(self._clients)))
    timers = property(lambda self: iter(list(self._timers)))
    guards = property(lambda self: iter(list(self._guards)))
    waitables = property(lambda self: iter(list(self._waitables)))

    def _entities(self) -> list[Any]:
        """All with callbacks, in the order in which an executor looks at them."""
        lists = (self._waitables, self._timers, self._subscriptions, self._guards, self._clients, self._services)
        return [each for entities in lists for each in list(entities)]

    def add_waitable(self, waitable: Any) -> None:
        self._waitables.append(waitable)
        self._wake_executor()

    def remove_waitable(self, waitable: Any) -> None:
        self._waitables.remove(waitable)
        self._wake_executor()

    def resolve_topic_name(self, topic: str, *, only_expand: bool = False) -> str:
        return self._resolve(topic, only_expand, is_service=False)

    if since("jazzy"):

        def resolve_service_name(self, service: str, *, only_expand: bool = False) -> str:
            return self._resolve(service, only_expand, is_service=True)

    def _resolve(self, name: str, only_expand: bool, is_service: bool) -> str:
        with self.handle:
            validate_topic_name(name, is_service=is_service)
            full = expand_topic_name(name, self.get_name(), self.get_namespace())
            if not only_expand:
                for arguments in self._all_arguments():
                    if (new := arguments.topic(full, self.get_name(), self.get_namespace())) != full:
                        return new
            return full

    def create_publisher(
        self,
        msg_type: Any,
        topic: str,
        qos_profile: QoSProfile | int,
        *,
        callback_group: Any = None,
        event_callbacks: _events.PublisherEventCallbacks | None = None,
        qos_overriding_options: Any = None,
        publisher_class: type[Publisher] = Publisher,
    ) -> Publisher:
        qos, group = _qos(qos_profile), callback_group or self.default_callback_group
        writer = self._endpoint(Writer, self.resolve_topic_name(topic), msg_type, qos)
        events = event_callbacks or _events.PublisherEventCallbacks()
        publisher = publisher_class(writer, msg_type, topic, qos, event_callbacks=events, callback_group=group)
        self._publishers.append(publisher)
        self._waitables.extend(publisher.event_handlers)
        self._wake_executor()
        return publisher

    def create_subscription(
        self,
        msg_type: Any,
        topic: str,
        callback: Callable[..., Any],
        qos_profile: QoSProfile | int,
        *,
        callback_group: Any = None,
        event_callbacks: _events.SubscriptionEventCallbacks | None = None,
        qos_overriding_options: Any = None,
        raw: bool = False,
    ) -> Subscription:
        qos, group = _qos(qos_profile), callback_group or self.default_callback_group
        reader = self._endpoint(Reader, self.resolve_topic_name(topic), msg_type, qos)
        events = event_callbacks or _events.SubscriptionEventCallbacks()
        try:
            subscription = Subscription(reader, msg_type, topic, callback, group, qos, raw, event_callbacks=events)
        except Exception:
            self._domain.remove(reader)
            raise
        group.add_entity(subscription)
        self._subscriptions.append(subscription)
        self._waitables.extend(subscription.event_handlers)
        self._wake_executor()
        return subscription

    def create_service(
        self,
        srv_type: Any,
        srv_name: str,
        callback: Callable[[Any, Any], Any],
        *,
        qos_profile: QoSProfile = qos_profile_services_default,
        callback_group: Any = None,
    ) -> Service:
        group = callback_group or self.default_callback_group
        server = self._endpoint(
            Server, self._resolve(srv_name, False, is_service=True), srv_type, qos_profile, service=True
        )
        service = Service(server, srv_type, srv_name, callback, group, qos_profile)
        group.add_entity(service)
        self._services.append(service)
        self._wake_executor()
        return service

    def create_client(
        self,
        srv_type: Any,
        srv_name: str,
        *,
        qos_profile: QoSProfile = qos_profile_services_default,
        callback_group: Any = None,
    ) -> Client:
        group = callback_group or self.default_callback_group
        caller = self._endpoint(
            Caller, self._resolve(srv_name, False, is_service=True), srv_type, qos_profile, service=True
        )
        client = Client(self.context, caller, srv_type, srv_name, qos_profile, group, self._domain)
        group.add_entity(client)
        self._clients.append(client)
        self._wake_executor()
        return client

    def create_timer(
        self,
        timer_period_sec: float,
        callback: Callable[[], Any] | None,
        callback_group: Any = None,
        clock: Any = None,
        **autostart: bool,
    ) -> Timer:
        """``autostart`` is known since jazzy."""
        if autostart.keys() - ({"autostart"} if since("jazzy") else set()):
            raise TypeError(f"create_timer() got an unexpected keyword argument {next(iter(autostart))!r}")
        group = callback_group or self.default_callback_group
        period_ns = int(float(timer_period_sec) * 1e9)
        if period_ns < 0:
            raise ValueError("timer period must not be negative")
        timer = Timer(callback, group, period_ns, clock or self.get_clock(), wake=self._wake_executor, **autostart)
        group.add_entity(timer)
        self._timers.append(timer)
        self._wake_executor()
        return timer

    def create_rate(self, frequency: float, clock: Any = None) -> Rate:
        if frequency <= 0:
            raise ValueError("frequency must be > 0")
        return Rate(self.create_timer(1 / frequency, None, self._rate_group, clock), context=self.context)

    def create_guard_condition(self, callback: Callable[[], Any], callback_group: Any = None) -> GuardCondition:
        group = callback_group or self.default_callback_group
        guard = GuardCondition(callback, group, wake=self._wake_executor)
        group.add_entity(guard)
        self._guards.append(guard)
        return guard

    def destroy_publisher(self, publisher: Publisher) -> bool:
        return self._destroy(self._publishers, publisher)

    def destroy_subscription(self, subscription: Subscription) -> bool:
        return self._destroy(self._subscriptions, subscription)

    def destroy_service(self, service: Service) -> bool:
        return self._destroy(self._services, service)

    def destroy_client(self, client: Client) -> bool:
        return self._destroy(self._clients, client)

    def destroy_timer(self, timer: Timer) -> bool:
        return self._destroy(self._timers, timer)

    def destroy_guard_condition(self, guard: GuardCondition) -> bool:
        return self._destroy(self._guards, guard)

    def destroy_rate(self, rate: Rate) -> bool:
        rate.destroy()
        return self.destroy_timer(rate._timer)

    def _end_endpoints(self) -> None:
        for entities in (
            self._publishers,
            self._subscriptions,
            self._clients,
            self._services,
            self._timers,
            self._guards,
        ):
            for each in list(entities):
                self._destroy(entities, each)

    def _destroy(self, entities: list[Any], entity: Any) -> bool:
        if entity not in entities:
            return False
        entities.remove(entity)
        for handler in getattr(entity, "event_handlers", ()):
            self._waitables.remove(handler)
        if isinstance(entity.handle, Endpoint):
            self._domain.remove(entity.handle)
        try:
            entity.destroy()
        except InvalidHandle:
            return False
        self._wake_executor()
        return True

    def _endpoint(self, kind: type[E], name: str, interface: Any, qos: QoSProfile, service: bool = False) -> E:
        known = hasattr(interface, "Request") if service else is_message(interface)
        if not known:
            raise AttributeError(f"{interface!r} has no attribute '_TYPE_SUPPORT': it is no ROS 2 interface")
        made = kind(self, name, interface._ros_name, qos, self._wake_executor)
        self._domain.add(made)
        return made


def _qos(qos_or_depth: QoSProfile | int) -> QoSProfile:
    if isinstance(qos_or_depth, QoSProfile):
        return qos_or_depth
    if isinstance(qos_or_depth, int):
        if qos_or_depth < 0:
            raise ValueError("history depth must be greater than or equal to zero")
        return QoSProfile(depth=qos_or_depth)
    raise TypeError(f"Expected QoSProfile or int, but received {type(qos_or_depth)!r}")
