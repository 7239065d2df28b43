"""Service servers."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from rosidl_double import cdr

from rclpy._graph import Caller, Server


class Service:
    """Made by :meth:`Node.create_service`."""

    def __init__(
        self,
        service_impl: Server,
        srv_type: Any,
        srv_name: str,
        callback: Callable[..., Any],
        callback_group: Any,
        qos_profile: Any,
    ) -> None:
        self._server, self.srv_type, self.srv_name = service_impl, srv_type, srv_name
        self.callback, self.callback_group, self.qos_profile = callback, callback_group, qos_profile
        self._executor_event = False

    def send_response(self, response: Any, header: tuple[Caller, int]) -> None:
        """Raises TypeError for what is no response of this service."""
        if not isinstance(response, self.srv_type.Response):
            raise TypeError()
        with self.handle:
            caller, number = header
            caller.queue.append((cdr.dumps(response), number))
            caller.wake()

    @property
    def handle(self) -> Server:
        return self._server

    @property
    def service_name(self) -> str:
        with self.handle:
            return self._server.name

    def destroy(self) -> None:
        self._server.destroy_when_not_in_use()

    def _due_ns(self) -> None:
        return None

    def _ready(self) -> bool:
        return bool(self._server.queue)

    def _take(self) -> Callable[[], Any] | None:
        try:
            data, caller, number = self._server.queue.popleft()
        except IndexError:
            return None
        request = cdr.loads(self.srv_type.Request, data)

        async def serve() -> None:
            response = self.callback(request, self.srv_type.Response())
            if inspect.iscoroutine(response):
                response = await response
            self.send_response(response, (caller, number))

        return serve
