"""Nodes."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from rcl_interfaces.msg import Log, ParameterEvent
from rosidl_double.distro import since

from rclpy import _arguments, logging
from rclpy._endpoints import Endpoints
from rclpy._graph import domain
from rclpy._graph_queries import GraphQueries
from rclpy._names import validate_namespace, validate_node_name
from rclpy._parameters import Parameters
from rclpy._rclpy_pybind11 import Destroyable
from rclpy.clock import ROSClock
from rclpy.exceptions import NotInitializedException
from rclpy.parameter import Parameter
from rclpy.parameter_service import ParameterService
from rclpy.qos import qos_profile_parameter_events, qos_profile_rosout_default
from rclpy.utilities import get_default_context

__all__ = ["Node"]


class Node(Parameters, Endpoints, GraphQueries):
    """Raises NotInitializedException before init(), and InvalidNodeNameException, InvalidNamespaceException."""

    def __init__(
        self,
        node_name: str,
        *,
        context: Any = None,
        cli_args: Sequence[str] | None = None,
        namespace: str | None = None,
        use_global_arguments: bool = True,
        enable_rosout: bool = True,
        start_parameter_services: bool = True,
        parameter_overrides: Sequence[Parameter] | None = None,
        allow_undeclared_parameters: bool = False,
        automatically_declare_parameters_from_overrides: bool = False,
        enable_logger_service: bool = False,
    ) -> None:
        self._context = context or get_default_context()
        if not self._context.ok():
            raise NotInitializedException("cannot create node")
        self.__executor: weakref.ReferenceType[Any] | None = None
        self.__handle = Destroyable()
        self._local = _arguments.parse(["--ros-args", *_without_flag(cli_args or ())])
        self._global = self._context.arguments if use_global_arguments else _arguments.Arguments()
        self._name, self._namespace = self._called(node_name, namespace or "")
        self._logger = logging.get_logger(self.get_fully_qualified_name().strip("/").replace("/", "."))
        self._clock = ROSClock()
        self._domain = domain(self._context.get_domain_id())
        self._begin_endpoints()
        self._begin_parameters(self._overrides(parameter_overrides or ()), allow_undeclared_parameters)
        self._domain.nodes.append(self)
        self._context.track_node(self)
        self._parameter_event_publisher = self.create_publisher(
            ParameterEvent, "/parameter_events", qos_profile_parameter_events
        )
        if enable_rosout:
            self._rosout = self.create_publisher(Log, "/rosout", qos_profile_rosout_default)
            logging.connect(self._logger.name, self._log)
        if automatically_declare_parameters_from_overrides:
            found = [(name, each.value) for name, each in self._parameter_overrides.items()]
            self.declare_parameters("", found, ignore_override=True)
        if not self.has_parameter("use_sim_time"):
            self.declare_parameter("use_sim_time", False)
        if start_parameter_services:
            self._parameter_service = ParameterService(self)

    def _called(self, name: str, namespace: str) -> tuple[str, str]:
        """Its name and namespace after remapping."""
        for arguments in (self._global, self._local):
            name = arguments.own_name("__node", name) or arguments.own_name("__name", name) or name
        for arguments in (self._global, self._local):
            namespace = arguments.own_name("__ns", name) or namespace
        namespace = namespace if namespace.startswith("/") else f"/{namespace}"
        validate_node_name(name)
        validate_namespace(namespace)
        return name, namespace

    def _overrides(self, given: Sequence[Parameter]) -> dict[str, Parameter]:
        name = self.get_fully_qualified_name()
        values = self._global.overrides(name) | self._local.overrides(name)
        found = {key: Parameter(key, value=value) for key, value in values.items()}
        return found | {each.name: each for each in given}

    def _all_arguments(self) -> tuple[_arguments.Arguments, ...]:
        return self._local, self._global

    def _log(self, level: int, name: str, text: str, frame: Any) -> None:
        if self._context.ok() and self._rosout in self._publishers:
            line = Log(level=level, name=name, msg=text, file=frame.filename, function=frame.function)
            line.line, line.stamp = frame.lineno, self._clock.now().to_msg()
            self._rosout.publish(line)

    @property
    def context(self) -> Any:
        return self._context

    @property
    def handle(self) -> Destroyable:
        return self.__handle

    @handle.setter
    def handle(self, value: Any) -> None:
        raise AttributeError("handle cannot be modified after node creation")

    @property
    def executor(self) -> Any:
        return self.__executor() if self.__executor else None

    @executor.setter
    def executor(self, new_executor: Any) -> None:
        current = self.executor
        if current is new_executor:
            return
        if current is not None:
            current.remove_node(self)
        self.__executor = None if new_executor is None else weakref.ref(new_executor)
        if new_executor is not None:
            new_executor.add_node(self)

    def _wake_executor(self) -> None:
        if (executor := self.executor) is not None:
            executor.wake()

    def get_name(self) -> str:
        with self.handle:
            return self._name

    def get_namespace(self) -> str:
        with self.handle:
            return self._namespace

    def get_fully_qualified_name(self) -> str:
        with self.handle:
            return f"{self._namespace.rstrip('/')}/{self._name}"

    def get_clock(self) -> ROSClock:
        return self._clock

    def get_logger(self) -> logging.RcutilsLogger:
        return self._logger

    def destroy_node(self) -> None:
        """It, and all that it made. What is used of it afterwards raises InvalidHandle."""
        logging.connect(self._logger.name, None)
        self._end_endpoints()
        if self in self._domain.nodes:
            self._domain.nodes.remove(self)
        self._context.untrack_node(self)
        self.__handle.destroy_when_not_in_use()
        self._wake_executor()

    if since("kilted"):

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *exc: object) -> None:
            self.destroy_node()


def _without_flag(arguments: Sequence[str]) -> list[str]:
    return [word for word in arguments if word != "--ros-args"]
