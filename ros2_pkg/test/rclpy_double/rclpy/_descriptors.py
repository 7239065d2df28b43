"""A parameter's descriptor: the type that it fixes, and the range that it allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rcl_interfaces.msg import ParameterValue, SetParametersResult
from rosidl_double.distro import since

from rclpy.parameter import Parameter

Type = Parameter.Type


def refused(reason: str) -> Any:
    return SetParametersResult(successful=False, reason=reason)


def declared_type(name: str, second: Any, descriptor: Any) -> Any:
    """Sets the descriptor's type; gives the default value."""
    if isinstance(second, Type):
        if second == Type.NOT_SET:
            raise ValueError(f"Cannot declare parameter {{{name}}} as statically typed of type NOT_SET")
        if descriptor.dynamic_typing:
            raise ValueError(f"When declaring parameter {{{name}}} dynamic_typing=True is not allowed with a type")
        descriptor.type = second.value
        return None
    if not descriptor.dynamic_typing and (second is not None or since("jazzy")):
        given = isinstance(second, ParameterValue)
        descriptor.type = second.type if given else Type.from_parameter_value(second).value
        if descriptor.type == Type.NOT_SET.value:
            raise ValueError("Cannot declare a statically typed parameter with default value of type PARAMETER_NOT_SET")
    return second


def within(parameter: Parameter, limits: Any, same: Callable[[Any, Any], bool], fault: str) -> Any:
    low, high = sorted((limits.from_value, limits.to_value))
    value = parameter.value
    if same(value, low) or same(value, high):
        return SetParametersResult(successful=True)
    if not low < value < high:
        return refused(f"Parameter {parameter.name} out of range Min: {low}, Max: {high}, value: {value}")
    if limits.step and not same(low + round((value - low) / limits.step) * limits.step, value):
        return refused(
            f"The parameter value for {parameter.name} {fault}. "
            f"Min: {low}, max: {high}, value: {value}, step: {limits.step}"
        )
    return SetParametersResult(successful=True)
