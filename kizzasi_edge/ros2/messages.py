"""Message types by name: those of ROS 2, and a project's own from ``.msg`` and ``.idl`` files. Needs rosbags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from kizzasi_edge.errors import ConfigError, MissingExtra
from kizzasi_edge.ros2.transport import MessageType

_BESIDE = {
    "control_msgs/msg/InterfaceValue": "string[] interface_names\nfloat64[] values\n",
    "control_msgs/msg/DynamicJointState": (
        "std_msgs/Header header\nstring[] joint_names\nInterfaceValue[] interface_values\n"
    ),
}
"""Messages of ros2_control that rosbags does not bring."""

_CONSTRUCTED = {2, 3, 4}  # rosbags' node types: a named type, an array, a sequence


class Messages:
    """The types known: those that ``distro`` ships ("humble", "jazzy", …), and those in ``definitions``: files, or
    folders searched for them. A definition takes the place of a shipped type of the same name.

    Raises :class:`ConfigError` for a file that cannot be read, :class:`MissingExtra` without rosbags.
    """

    def __init__(self, definitions: Iterable[Path] = (), distro: str = "jazzy") -> None:
        typesys = rosbags("rosbags.typesys")
        self.store = typesys.get_typestore(getattr(typesys.Stores, f"ROS2_{distro.upper()}"))
        for name, text in _BESIDE.items():
            self.store.register(typesys.get_types_from_msg(text, name))
        own: dict[str, Any] = {}
        for path in _files(definitions):
            own |= _parse(path, typesys)
        for name in own:
            self.store.fielddefs.pop(name, None)
        if own:
            self.store.register(own)

    def type(self, name: str) -> MessageType:
        """``sensor_msgs/msg/JointState``, or ``sensor_msgs/JointState``. Raises :class:`ConfigError`: no such type, or
        a part of it is not known."""
        parts = name.split("/")
        return message_type(self.store, f"{parts[0]}/msg/{parts[1]}" if len(parts) == 2 else name)


def message_type(store: Any, name: str) -> MessageType:
    """A type of a rosbags typestore: what it is made of, and its RIHS01 hash ("" where rosbags has none for it).

    Raises :class:`ConfigError` if it, or a type in it, is not there, or holds itself.
    """
    fields: dict[str, Any] = {}
    _collect(store.fielddefs, (name,), fields)
    try:
        rihs = store.hash_rihs01(name)
    except KeyError:  # wide strings
        rihs = ""
    return MessageType(name, rihs, fields)


def rosbags(module: str) -> Any:
    """Import a module of rosbags. Raises :class:`MissingExtra` where it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtra("message types need rosbags: pip install 'kizzasi-edge[dds]', or [bags]") from error


def _collect(known: Mapping[str, Any], inside: tuple[str, ...], into: dict[str, Any]) -> None:
    """The last of the types ``inside`` each other, and what is in it."""
    name = inside[-1]
    where = f" in {inside[0]}" if inside[:-1] else ""
    if name in inside[:-1]:
        raise ConfigError(f"type {name!r}{where}: holds itself")
    if name not in known:
        raise ConfigError(f"type {name!r}{where}: not known; expected a ROS 2 type, or its .msg or .idl in definitions")
    into[name] = known[name]
    for _, description in known[name][1]:
        kind, inner = description
        while kind in _CONSTRUCTED and not isinstance(inner, str):
            kind, inner = inner[0]
        if isinstance(inner, str):
            _collect(known, (*inside, inner), into)


def _files(definitions: Iterable[Path]) -> list[Path]:
    found = []
    for path in definitions:
        inside = sorted(file for end in ("msg", "idl") for file in path.rglob(f"*.{end}")) if path.is_dir() else [path]
        if not inside:
            raise ConfigError(f"{path}: no .msg or .idl file in this folder")
        found += inside
    return found


def _parse(path: Path, typesys: Any) -> dict[str, Any]:
    """The types of one file; a ``.msg`` file is named by its place, ``<package>/msg/<Name>.msg``."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: cannot be read: {exc}") from exc
    package, folder = path.resolve().parts[-3:-1]
    if path.suffix == ".msg" and folder != "msg":
        raise ConfigError(f"{path}: found a message outside a folder 'msg'; expected <package>/msg/{path.name}")
    try:
        if path.suffix == ".msg":
            return dict(typesys.get_types_from_msg(text, f"{package}/msg/{path.stem}"))
        if path.suffix == ".idl":
            return dict(typesys.get_types_from_idl(text))
    except Exception as exc:  # the parser's own, and what unforeseen text leads it into
        raise ConfigError(f"{path}: cannot be read as a {path.suffix} file: {str(exc)[:300]}") from None
    raise ConfigError(f"{path}: found {path.suffix!r}; expected a .msg or .idl file")
