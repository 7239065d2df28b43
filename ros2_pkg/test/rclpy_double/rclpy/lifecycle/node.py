"""Managed nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from lifecycle_msgs.msg import State, Transition, TransitionDescription, TransitionEvent
from lifecycle_msgs.srv import ChangeState, GetAvailableStates, GetAvailableTransitions, GetState
from rosidl_double.distro import since

from rclpy._rclpy_pybind11 import RCLError
from rclpy.lifecycle._machine import STATES, STEPS, LifecycleStateMachine, Step
from rclpy.lifecycle.managed_entity import ManagedEntity, TransitionCallbackReturn
from rclpy.lifecycle.publisher import LifecyclePublisher
from rclpy.node import Node


class LifecycleState(NamedTuple):
    """What a transition's callback is told: the state before the transition."""

    label: str
    state_id: int


class LifecycleNodeMixin(ManagedEntity):
    """For a class that derives from Node as well.

    A transition that does not begin here raises RCLError (asked for by its id through the service, out of the
    executor); since kilted it is logged and ERROR. A callback that raises counts as ERROR, silently. The default
    callbacks pass on to the managed entities, up to the first that does not succeed.
    """

    def __init__(self, *, enable_communication_interface: bool = True, callback_group: Any = None) -> None:
        if not isinstance(enable_communication_interface, bool):
            raise TypeError("enable_communication_interface must be a bool")
        self._callbacks: dict[int, Callable[[LifecycleState], TransitionCallbackReturn]] = {
            State.TRANSITION_STATE_CONFIGURING: self.on_configure,
            State.TRANSITION_STATE_CLEANINGUP: self.on_cleanup,
            State.TRANSITION_STATE_SHUTTINGDOWN: self.on_shutdown,
            State.TRANSITION_STATE_ACTIVATING: self.on_activate,
            State.TRANSITION_STATE_DEACTIVATING: self.on_deactivate,
            State.TRANSITION_STATE_ERRORPROCESSING: self.on_error,
        }
        self._managed_entities: set[ManagedEntity] = set()
        self._transition_events: Any = None
        self._state_machine = LifecycleStateMachine(self._tell)
        if enable_communication_interface:
            self._transition_events = Node.create_publisher(self, TransitionEvent, "~/transition_event", 10)
            for kind, name, callback in (
                (ChangeState, "change_state", self._on_change_state),
                (GetState, "get_state", self._on_get_state),
                (GetAvailableStates, "get_available_states", self._on_get_available_states),
                (GetAvailableTransitions, "get_available_transitions", self._on_get_available_transitions),
                (GetAvailableTransitions, "get_transition_graph", self._on_get_transition_graph),
            ):
                self.create_service(kind, f"~/{name}", callback, callback_group=callback_group)

    def trigger_configure(self) -> TransitionCallbackReturn:
        return self._change_state(Transition.TRANSITION_CONFIGURE)

    def trigger_cleanup(self) -> TransitionCallbackReturn:
        return self._change_state(Transition.TRANSITION_CLEANUP)

    def trigger_activate(self) -> TransitionCallbackReturn:
        return self._change_state(Transition.TRANSITION_ACTIVATE)

    def trigger_deactivate(self) -> TransitionCallbackReturn:
        return self._change_state(Transition.TRANSITION_DEACTIVATE)

    def trigger_shutdown(self) -> TransitionCallbackReturn | None:
        """None where the state knows no shutdown."""
        wanted = {
            "unconfigured": Transition.TRANSITION_UNCONFIGURED_SHUTDOWN,
            "inactive": Transition.TRANSITION_INACTIVE_SHUTDOWN,
            "active": Transition.TRANSITION_ACTIVE_SHUTDOWN,
        }.get(self._state_machine.current_state[1])
        return None if wanted is None else self._change_state(wanted)

    def add_managed_entity(self, entity: ManagedEntity) -> None:
        self._managed_entities.add(entity)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._pass_on(ManagedEntity.on_configure, state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._pass_on(ManagedEntity.on_cleanup, state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._pass_on(ManagedEntity.on_shutdown, state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._pass_on(ManagedEntity.on_activate, state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._pass_on(ManagedEntity.on_deactivate, state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._pass_on(ManagedEntity.on_error, state)

    def _pass_on(self, which: Callable[..., Any], state: LifecycleState) -> TransitionCallbackReturn:
        for entity in self._managed_entities:
            answer = getattr(entity, which.__name__)(state)
            if answer != TransitionCallbackReturn.SUCCESS:
                return answer
        return TransitionCallbackReturn.SUCCESS

    def create_lifecycle_publisher(self, *args: Any, **kwargs: Any) -> LifecyclePublisher:
        if "publisher_class" in kwargs:
            raise TypeError("create_publisher() got an unexpected keyword argument 'publisher_class'")
        made = Node.create_publisher(self, *args, **kwargs, publisher_class=LifecyclePublisher)
        self._managed_entities.add(made)
        return made

    def destroy_lifecycle_publisher(self, publisher: LifecyclePublisher) -> bool:
        self._managed_entities.discard(publisher)
        return Node.destroy_publisher(self, publisher)

    def _execute(self, previous: LifecycleState) -> TransitionCallbackReturn:
        callback = self._callbacks.get(self._state_machine.current_state[0])
        if callback is None:
            return TransitionCallbackReturn.SUCCESS
        try:
            return callback(previous)
        except Exception:
            return TransitionCallbackReturn.ERROR

    def _change_state(self, transition_id: int) -> TransitionCallbackReturn:
        number, label = self._state_machine.current_state
        before = LifecycleState(label=label, state_id=number)
        try:
            self._state_machine.trigger_transition_by_id(transition_id, True)
        except RCLError:
            if not since("kilted"):
                raise
            self.get_logger().error(f"Unable to start transition {transition_id} from current state {(number, label)}")
            return TransitionCallbackReturn.ERROR
        answer = self._execute(before)
        self._state_machine.trigger_transition_by_label(answer.to_label(), True)
        if answer == TransitionCallbackReturn.ERROR:
            on_error = self._execute(before)
            self._state_machine.trigger_transition_by_label(on_error.to_label(), True)
        return answer

    def _tell(self, step: Step) -> None:
        if self._transition_events is not None:
            event = TransitionEvent(timestamp=self.get_clock().now().nanoseconds)
            event.transition, event.start_state, event.goal_state = _parts(step)
            self._transition_events.publish(event)

    def _on_change_state(self, request: Any, response: Any) -> Any:
        wanted = request.transition.id
        if request.transition.label:
            try:
                wanted = self._state_machine.get_transition_by_label(request.transition.label)
            except RCLError:
                response.success = False
                return response
        response.success = self._change_state(wanted) == TransitionCallbackReturn.SUCCESS
        return response

    def _on_get_state(self, request: Any, response: Any) -> Any:
        response.current_state.id, response.current_state.label = self._state_machine.current_state
        return response

    def _on_get_available_states(self, request: Any, response: Any) -> Any:
        response.available_states = [State(id=number, label=label) for number, label in STATES.items()]
        return response

    def _on_get_available_transitions(self, request: Any, response: Any) -> Any:
        response.available_transitions = _described(self._state_machine.available_transitions)
        return response

    def _on_get_transition_graph(self, request: Any, response: Any) -> Any:
        response.available_transitions = _described(STEPS)
        return response


def _parts(step: Step) -> tuple[Any, Any, Any]:
    start, goal = (State(id=number, label=STATES[number]) for number in (step.start, step.goal))
    return Transition(id=step.id, label=step.label), start, goal


def _described(steps: Iterable[Step]) -> list[Any]:
    parts = (_parts(step) for step in steps)
    return [TransitionDescription(transition=what, start_state=start, goal_state=goal) for what, start, goal in parts]


class LifecycleNode(LifecycleNodeMixin, Node):
    """A managed node."""

    def __init__(self, node_name: str, *, enable_communication_interface: bool = True, **kwargs: Any) -> None:
        Node.__init__(self, node_name, **kwargs)
        LifecycleNodeMixin.__init__(self, enable_communication_interface=enable_communication_interface)
