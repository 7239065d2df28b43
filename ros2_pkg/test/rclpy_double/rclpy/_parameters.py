"""The parameters of a node: declared, checked against their descriptors and by callbacks, and told of."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from rcl_interfaces.msg import (
    ListParametersResult,
    ParameterDescriptor,
    ParameterEvent,
    SetParametersResult,
)
from rosidl_double.distro import since

from rclpy import exceptions
from rclpy._descriptors import declared_type, refused, within
from rclpy._names import validate_parameter_name
from rclpy.parameter import Parameter

Type = Parameter.Type
Callback = Callable[[list[Parameter]], Any]


class Parameters:
    """A part of :class:`rclpy.node.Node`."""

    PARAM_REL_TOL = 1e-6
    _allow_undeclared_parameters: bool
    _parameter_event_publisher: Any

    def _begin_parameters(self, overrides: dict[str, Parameter], allow_undeclared: bool) -> None:
        self._parameters: dict[str, Parameter] = {}
        self._descriptors: dict[str, Any] = {}
        self._parameter_overrides = overrides
        self._allow_undeclared_parameters = allow_undeclared
        self._on_set_parameters_callbacks: list[Callback] = []
        self._pre_set_parameters_callbacks: list[Callback] = []
        self._post_set_parameters_callbacks: list[Callback] = []

    def declare_parameter(
        self, name: str, value: Any = None, descriptor: Any = None, ignore_override: bool = False
    ) -> Parameter:
        given = (name,) if value is None and descriptor is None else (name, value, descriptor or ParameterDescriptor())
        return self.declare_parameters("", [given], ignore_override)[0]

    def declare_parameters(
        self, namespace: str, parameters: Sequence[tuple[Any, ...]], ignore_override: bool = False
    ) -> list[Parameter]:
        """(name, value or type, descriptor) each. Raises ParameterAlreadyDeclaredException,
        InvalidParameterException, InvalidParameterValueException, InvalidParameterTypeException, TypeError or
        ValueError."""
        found, descriptors = [], {}
        for index, given in enumerate(parameters):
            if not 1 <= len(given) <= 3:
                raise TypeError(f"Invalid parameter tuple length at index {index} in parameters list: {given}")
            name, second, descriptor = (*given, None, None)[:3]
            descriptor = ParameterDescriptor() if len(given) < 3 else descriptor
            if not isinstance(name, str):
                raise TypeError(f"First element {name} at index {index} in parameters list is not a str.")
            name = f"{namespace}.{name}" if namespace else name
            validate_parameter_name(name)
            if not isinstance(descriptor, ParameterDescriptor):
                raise TypeError(f"Third element {descriptor} at index {index} in parameters list is no descriptor.")
            if len(given) == 1:
                text = f"when declaring parameter named '{name}', only providing its name is deprecated."
                warnings.warn(text, stacklevel=3)
                descriptor.dynamic_typing = True
            value = declared_type(name, second, descriptor)
            if not ignore_override and name in self._parameter_overrides:
                value = self._parameter_overrides[name].value
            found.append(Parameter(name, value=value))
            descriptors[name] = descriptor
        if already := [each.name for each in found if each.name in self._parameters]:
            raise exceptions.ParameterAlreadyDeclaredException(already)
        for each in found:
            self._declare(each, descriptors)
        return [self._parameters[each.name] for each in found]

    def _declare(self, parameter: Parameter, descriptors: dict[str, Any]) -> None:
        result = self._set_all([parameter], descriptors, keep_not_set=True)
        if not result.successful:
            if result.reason.startswith("Wrong parameter type"):
                expected = Type(descriptors[parameter.name].type).name
                raise exceptions.InvalidParameterTypeException(parameter, expected)
            raise exceptions.InvalidParameterValueException(parameter.name, parameter.value, result.reason)

    def undeclare_parameter(self, name: str) -> None:
        if not self.has_parameter(name):
            raise exceptions.ParameterNotDeclaredException(name)
        if self._descriptors[name].read_only:
            raise exceptions.ParameterImmutableException(name)
        del self._parameters[name], self._descriptors[name]

    def has_parameter(self, name: str) -> bool:
        return name in self._parameters

    def get_parameter(self, name: str) -> Parameter:
        """Raises ParameterNotDeclaredException, ParameterUninitializedException."""
        if self.has_parameter(name):
            if self._parameters[name].type_ == Type.NOT_SET and not self._descriptors[name].dynamic_typing:
                raise exceptions.ParameterUninitializedException(name)
            return self._parameters[name]
        if self._allow_undeclared_parameters:
            return Parameter(name, Type.NOT_SET, None)
        raise exceptions.ParameterNotDeclaredException(name)

    def get_parameters(self, names: list[str]) -> list[Parameter]:
        if not all(isinstance(name, str) for name in names):
            raise TypeError("All names must be instances of type str")
        return [self.get_parameter(name) for name in names]

    def get_parameter_or(self, name: str, alternative_value: Parameter | None = None) -> Parameter:
        found = self._parameters.get(name)
        if found is None or found.type_ == Type.NOT_SET:
            return alternative_value or Parameter(name, Type.NOT_SET)
        return found

    def get_parameters_by_prefix(self, prefix: str) -> dict[str, Parameter]:
        begin = f"{prefix}." if prefix else ""
        return {name[len(begin) :]: each for name, each in self._parameters.items() if name.startswith(begin)}

    def get_parameter_types(self, names: list[str]) -> list[Any]:
        return [self.get_parameter_type(name) for name in names]

    def get_parameter_type(self, name: str) -> Any:
        if self.has_parameter(name):
            return self._parameters[name].type_.value
        if self._allow_undeclared_parameters:
            return Type.NOT_SET
        raise exceptions.ParameterNotDeclaredException(name)

    def set_parameters(self, parameter_list: list[Parameter]) -> list[Any]:
        """Each by itself, a result each. Raises ParameterNotDeclaredException; those before it stay set."""
        return [self.set_parameters_atomically([each]) for each in parameter_list]

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> Any:
        if self._pre_set_parameters_callbacks:
            calls = [callback(parameter_list) for callback in self._pre_set_parameters_callbacks]
            parameter_list = [each for made in calls for each in made]
            if not parameter_list:
                return SetParametersResult(
                    successful=False,
                    reason="parameter list cannot be empty, this might be due to pre_set_parameters_callback modifying "
                    "the original parameters list.",
                )
        if not all(isinstance(each, Parameter) for each in parameter_list):
            raise TypeError(f"parameter must be instance of type '{Parameter!r}'")
        unknown = [each.name for each in parameter_list if each.name not in self._parameters]
        if unknown and not self._allow_undeclared_parameters:
            raise exceptions.ParameterNotDeclaredException(unknown)
        return self._set_all(parameter_list, None, keep_not_set=False)

    def _set_all(self, parameters: list[Parameter], descriptors: dict[str, Any] | None, keep_not_set: bool) -> Any:
        for each in parameters:
            known = self._descriptors if descriptors is None else descriptors
            if each.name in known:
                result = self._check(each, known[each.name], check_read_only=descriptors is None)
                if not result.successful:
                    return result
        for callback in list(self._on_set_parameters_callbacks):
            result = callback(parameters)
            if not result.successful:
                return result
        event = ParameterEvent(node=self.get_fully_qualified_name(), stamp=self.get_clock().now().to_msg())
        for each in parameters:
            if each.type_ == Type.NOT_SET and not keep_not_set:
                event.deleted_parameters.append(each.to_parameter_msg())
                self._parameters.pop(each.name, None)
                self._descriptors.pop(each.name, None)
                continue
            if descriptors is not None:
                self._descriptors[each.name] = descriptors[each.name]
            self._descriptors.setdefault(each.name, ParameterDescriptor(dynamic_typing=True))
            new = self.get_parameter_or(each.name).type_ == Type.NOT_SET
            (event.new_parameters if new else event.changed_parameters).append(each.to_parameter_msg())
            self._parameters[each.name] = each
        self._parameter_event_publisher.publish(event)
        for after in list(self._post_set_parameters_callbacks):
            after(parameters)
        return SetParametersResult(successful=True)

    def _check(self, parameter: Parameter, descriptor: Any, check_read_only: bool) -> Any:
        descriptor.name = parameter.name
        if check_read_only and descriptor.read_only:
            return refused(f"Trying to set a read-only parameter: {parameter.name}.")
        if descriptor.dynamic_typing:
            descriptor.type = parameter.type_.value
        elif self.has_parameter(parameter.name) and parameter.type_ == Type.NOT_SET:
            return refused("Static parameter cannot be undeclared")
        elif parameter.type_ not in (Type.NOT_SET, Type(descriptor.type)):
            return refused(f"Wrong parameter type, expected '{Type(descriptor.type)}' got '{parameter.type_}'")
        if parameter.type_ == Type.INTEGER and descriptor.integer_range:
            return within(parameter, descriptor.integer_range[0], lambda a, b: a == b, "is not a valid step")
        if parameter.type_ == Type.DOUBLE and descriptor.floating_point_range:
            close = lambda a, b: math.isclose(a, b, rel_tol=self.PARAM_REL_TOL)  # noqa: E731
            return within(parameter, descriptor.floating_point_range[0], close, "is not close enough to a valid step")
        return SetParametersResult(successful=True)

    def describe_parameter(self, name: str) -> Any:
        if name in self._descriptors:
            return self._descriptors[name]
        if self._allow_undeclared_parameters:
            return ParameterDescriptor()
        raise exceptions.ParameterNotDeclaredException(name)

    def describe_parameters(self, names: list[str]) -> list[Any]:
        return [self.describe_parameter(name) for name in names]

    def _listed(self, prefixes: list[str], depth: int) -> Any:
        """``depth`` 0: any."""
        result = ListParametersResult()
        for name in self._parameters:
            rests = (
                [name[len(p) + 1 :] for p in prefixes if name == p or name.startswith(f"{p}.")] if prefixes else [name]
            )
            if any(depth == 0 or rest.count(".") < depth for rest in rests):
                result.names.append(name)
                above = name.rpartition(".")[0]
                if above and above not in result.prefixes:
                    result.prefixes.append(above)
        return result

    if since("jazzy"):
        list_parameters = _listed

    def add_on_set_parameters_callback(self, callback: Callback) -> None:
        self._on_set_parameters_callbacks.insert(0, callback)

    def remove_on_set_parameters_callback(self, callback: Callback) -> None:
        self._on_set_parameters_callbacks.remove(callback)

    if since("iron"):

        def add_pre_set_parameters_callback(self, callback: Callback) -> None:
            self._pre_set_parameters_callbacks.insert(0, callback)

        def remove_pre_set_parameters_callback(self, callback: Callback) -> None:
            self._pre_set_parameters_callbacks.remove(callback)

        def add_post_set_parameters_callback(self, callback: Callback) -> None:
            self._post_set_parameters_callbacks.insert(0, callback)

        def remove_post_set_parameters_callback(self, callback: Callback) -> None:
            self._post_set_parameters_callbacks.remove(callback)
