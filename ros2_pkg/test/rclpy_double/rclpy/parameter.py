"""Parameters: name, type and value."""

from __future__ import annotations

import array
from enum import Enum
from typing import Any

from rcl_interfaces.msg import Parameter as ParameterMsg
from rcl_interfaces.msg import ParameterType, ParameterValue

PARAMETER_SEPARATOR_STRING = "."
_FIELDS = {
    "BOOL": "bool_value",
    "INTEGER": "integer_value",
    "DOUBLE": "double_value",
    "STRING": "string_value",
    "BYTE_ARRAY": "byte_array_value",
    "BOOL_ARRAY": "bool_array_value",
    "INTEGER_ARRAY": "integer_array_value",
    "DOUBLE_ARRAY": "double_array_value",
    "STRING_ARRAY": "string_array_value",
}
_SCALARS = {"BOOL": bool, "INTEGER": int, "DOUBLE": float, "STRING": str}
_ITEMS = {"BYTE_ARRAY": bytes, "BOOL_ARRAY": bool, "INTEGER_ARRAY": int, "DOUBLE_ARRAY": float, "STRING_ARRAY": str}


class Parameter:
    """Without ``type_`` its type is that of the value: of an empty list BYTE_ARRAY. Raises TypeError for a value of no
    parameter type, ValueError where type and value do not agree."""

    class Type(Enum):
        NOT_SET = ParameterType.PARAMETER_NOT_SET
        BOOL = ParameterType.PARAMETER_BOOL
        INTEGER = ParameterType.PARAMETER_INTEGER
        DOUBLE = ParameterType.PARAMETER_DOUBLE
        STRING = ParameterType.PARAMETER_STRING
        BYTE_ARRAY = ParameterType.PARAMETER_BYTE_ARRAY
        BOOL_ARRAY = ParameterType.PARAMETER_BOOL_ARRAY
        INTEGER_ARRAY = ParameterType.PARAMETER_INTEGER_ARRAY
        DOUBLE_ARRAY = ParameterType.PARAMETER_DOUBLE_ARRAY
        STRING_ARRAY = ParameterType.PARAMETER_STRING_ARRAY

        @classmethod
        def from_parameter_value(cls, parameter_value: Any) -> Parameter.Type:
            if parameter_value is None:
                return cls.NOT_SET
            for name, kind in _SCALARS.items():
                if isinstance(parameter_value, kind):
                    return cls[name]
            if not isinstance(parameter_value, (list, tuple, array.array)):
                raise TypeError(f"The given value is not one of the allowed types '{parameter_value}'.")
            for name, kind in _ITEMS.items():
                if all(isinstance(each, kind) for each in parameter_value):
                    return cls[name]
            raise TypeError(f"The given value is not a list of one of the allowed types '{parameter_value}'.")

        def check(self, parameter_value: Any) -> bool:
            if self.name == "NOT_SET":
                return parameter_value is None
            if self.name in _SCALARS:
                return isinstance(parameter_value, _SCALARS[self.name])
            kinds = (list, tuple, array.array) if self.name in ("INTEGER_ARRAY", "DOUBLE_ARRAY") else (list, tuple)
            kind = _ITEMS[self.name]
            return isinstance(parameter_value, kinds) and all(
                isinstance(each, kind) and (kind is not bytes or len(each) == 1) for each in parameter_value
            )

    @classmethod
    def from_parameter_msg(cls, param_msg: Any) -> Parameter:
        kind = cls.Type(param_msg.value.type)
        value = getattr(param_msg.value, _FIELDS[kind.name]) if kind.name in _FIELDS else None
        return cls(param_msg.name, kind, value)

    def __init__(self, name: str, type_: Parameter.Type | None = None, value: Any = None) -> None:
        kind = Parameter.Type.from_parameter_value(value) if type_ is None else type_
        if not isinstance(kind, Parameter.Type):
            raise TypeError(f"type must be an instance of '{Parameter.Type!r}'")
        if not kind.check(value):
            raise ValueError(f"Type '{kind}' and value '{value}' do not agree")
        self._type_, self._name, self._value = kind, name, value

    @property
    def name(self) -> str:
        return self._name

    @property
    def type_(self) -> Parameter.Type:
        return self._type_

    @property
    def value(self) -> Any:
        return self._value

    def get_parameter_value(self) -> Any:
        made = ParameterValue(type=self._type_.value)
        if self._type_.name in _FIELDS:
            setattr(made, _FIELDS[self._type_.name], self._value)
        return made

    def to_parameter_msg(self) -> Any:
        return ParameterMsg(name=self._name, value=self.get_parameter_value())


def parameter_value_to_python(parameter_value: Any) -> Any:
    """None where it is not set. Raises RuntimeError for an unknown type."""
    try:
        name = Parameter.Type(parameter_value.type).name
    except ValueError:
        raise RuntimeError(f"unexpected parameter type {parameter_value.type}") from None
    if name not in _FIELDS:
        return None
    value = getattr(parameter_value, _FIELDS[name])
    return list(value) if name in _ITEMS else value
