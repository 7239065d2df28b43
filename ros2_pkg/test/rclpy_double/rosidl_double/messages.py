"""Message and service classes, made when first asked for: slots, checked properties, defaults, equality."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from rosidl_double import store
from rosidl_double.definitions import SERVICES
from rosidl_double.distro import since
from rosidl_double.fields import Field, field


class Constants(type):
    """A message's constants are read-only attributes of its class, and of its objects."""

    def __setattr__(cls, name: str, value: Any) -> None:
        if name in cls.__dict__.get("_constants", ()):
            raise AttributeError(f"can't set attribute {name!r} of {cls.__name__}")
        super().__setattr__(name, value)


class Message(metaclass=Constants):
    """What all message classes share. ``_fields`` and ``_ros_name`` belong to the double."""

    __slots__ = ()
    _fields: dict[str, Field] = {}
    _ros_name = ""

    def __init__(self, **given: Any) -> None:
        if since("jazzy"):
            given.pop("check_fields", None)
        unknown = [key for key in given if key not in self._fields]
        assert not unknown, f"Invalid arguments passed to constructor: {', '.join(unknown)}"
        for name, kind in self._fields.items():
            setattr(self, name, given[name] if name in given else kind.default())

    @classmethod
    def get_fields_and_field_types(cls) -> dict[str, str]:
        return {name: kind.text for name, kind in cls._fields.items()}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, self.__class__):
            return False
        pairs = ((getattr(self, name), getattr(other, name)) for name in self._fields)
        return all(np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b for a, b in pairs)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._fields)
        return f"{self.__class__.__module__.rsplit('.', 1)[0]}.{self.__class__.__name__}({inside})"


def _slot(name: str, kind: Field) -> property:
    return property(
        lambda self: getattr(self, "_" + name),
        lambda self, value: setattr(self, "_" + name, kind.check(value)),
        doc=f"Message field {name!r}.",
    )


@cache
def message(name: str) -> Any:
    """The class of ``sensor_msgs/msg/JointState``. Raises KeyError for a type that is not known."""
    package, folder, short = name.split("/")
    described = {key: field(key, kind, message) for key, kind in store.fields(name).items()}
    constants = {
        key: bytes([value]) if kind in ("byte", "octet") else value for key, kind, value in store.constants(name)
    }
    body: dict[str, Any] = {"__slots__": [f"_{key}" for key in described], "__module__": f"{package}.{folder}._{short}"}
    body |= {key: _slot(key, kind) for key, kind in described.items()} | constants
    body |= {"_fields": described, "_ros_name": name, "_constants": frozenset(constants)}
    return Constants(short, (Message,), body)


@cache
def service(name: str) -> Any:
    """The class of ``std_srvs/srv/Trigger``: never made into an object, it holds its two messages."""
    package, folder, short = name.split("/")

    def refuse(self: Any) -> None:
        raise NotImplementedError("Service classes can not be instantiated")

    body = {half: message(f"{name}_{half}") for half in ("Request", "Response")}
    return type(short, (), body | {"__init__": refuse, "__module__": f"{package}.{folder}", "_ros_name": name})


def package(module: str) -> Callable[[str], Any]:
    """``__getattr__`` of ``sensor_msgs.msg`` and its like."""
    root, folder = module.split(".")

    def find(attribute: str) -> Any:
        name = f"{root}/{folder}/{attribute}"
        known = SERVICES if folder == "srv" else store.names()
        if name not in known:
            raise AttributeError(f"module {module!r} has no attribute {attribute!r}")
        return service(name) if folder == "srv" else message(name)

    return find


def is_message(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Message)


def fill(kind: Any, values: SimpleNamespace) -> Any:
    """A message from what the codec read."""
    made = kind()
    for name, description in store.fields(kind._ros_name).items():
        setattr(made, name, _python(description, getattr(values, name)))
    return made


def _python(description: Any, value: Any) -> Any:
    form, inner = description
    if form == 1:
        return bytes([value]) if inner[0] in ("byte", "octet") else value
    if form == 2:
        return fill(message(inner), value)
    item = inner[0]
    if isinstance(value, np.ndarray):
        if item[1][0] in ("byte", "octet"):
            return [bytes([each]) for each in value.tolist()]
        return value.tolist() if form == 4 or item[1][0] == "bool" else value
    return [_python(item, each) for each in value]


def plain(value: Any) -> Any:
    """A message as the codec writes it: mappings of numbers, texts and sequences."""
    if isinstance(value, Message):
        return {name: plain(getattr(value, name)) for name in value._fields}
    if isinstance(value, (bytes, bytearray)) and len(value) == 1:
        return value[0]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(each) for each in value]
    return value
