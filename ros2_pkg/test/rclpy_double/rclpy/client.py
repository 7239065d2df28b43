"""Service clients."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from rosidl_double import cdr
from rosidl_double.distro import since

from rclpy._graph import Caller, Domain
from rclpy.task import Future


class Client:
    """Made by :meth:`Node.create_client`."""

    def __init__(
        self,
        context: Any,
        client_impl: Caller,
        srv_type: Any,
        srv_name: str,
        qos_profile: Any,
        callback_group: Any,
        domain: Domain,
    ) -> None:
        self.context, self._caller, self.srv_type, self.srv_name = context, client_impl, srv_type, srv_name
        self.qos_profile, self.callback_group, self._domain = qos_profile, callback_group, domain
        self._executor_event = False
        self._lock = threading.Lock()
        self._pending_requests: dict[int, Future] = {}
        self._number = 0

    def call(self, request: Any, *timeout: float | None, **timeout_sec: float | None) -> Any:
        """Waits; some other thread must spin. ``timeout_sec`` is known since jazzy, which gives None when it has
        passed; later versions raise TimeoutError. Raises TypeError."""
        if len(timeout) + len(timeout_sec) > since("jazzy") or timeout_sec.keys() - {"timeout_sec"}:
            raise TypeError("call() got an unexpected argument")
        seconds = timeout[0] if timeout else timeout_sec.get("timeout_sec")
        if not isinstance(request, self.srv_type.Request):
            raise TypeError()
        event = threading.Event()
        future = self.call_async(request)
        future.add_done_callback(lambda _: event.set())
        if not event.wait(seconds):
            self.remove_pending_request(future)
            if since("kilted"):
                raise TimeoutError
            return None
        return future.result()

    def call_async(self, request: Any) -> Future:
        """Raises TypeError."""
        if not isinstance(request, self.srv_type.Request):
            raise TypeError()
        with self.handle:
            data = cdr.dumps(request)
            future = Future()
            with self._lock:
                self._number += 1
                number = self._number
                self._pending_requests[number] = future
            future.add_done_callback(self.remove_pending_request)
            for server in self._domain.servers(self._caller):
                server.queue.append((data, self._caller, number))
                server.wake()
        return future

    def remove_pending_request(self, future: Future) -> None:
        with self._lock:
            for number, pending in list(self._pending_requests.items()):
                if pending is future:
                    del self._pending_requests[number]

    def service_is_ready(self) -> bool:
        with self.handle:
            return bool(self._domain.servers(self._caller))

    def wait_for_service(self, timeout_sec: float | None = None) -> bool:
        end = None if timeout_sec is None else time.monotonic() + timeout_sec
        while self.context.ok() and not self.service_is_ready() and (end is None or time.monotonic() < end):
            time.sleep(0.01)
        return self.service_is_ready()

    @property
    def handle(self) -> Caller:
        return self._caller

    @property
    def service_name(self) -> str:
        with self.handle:
            return self._caller.name

    def destroy(self) -> None:
        self._caller.destroy_when_not_in_use()

    def _due_ns(self) -> None:
        return None

    def _ready(self) -> bool:
        return bool(self._caller.queue)

    def _take(self) -> Callable[[], Any] | None:
        try:
            data, number = self._caller.queue.popleft()
        except IndexError:
            return None
        response = cdr.loads(self.srv_type.Response, data)

        def deliver() -> None:
            with self._lock:
                future = self._pending_requests.get(number)
            if future is not None:
                future._set_executor(self._caller.node.executor)
                future.set_result(response)

        return deliver
