"""One number of a topic's messages by name: ``/joint_states:position[elbow]``. Training and running use this language.

A :class:`Channel` finds its way through anything that has the message's fields as attributes: rosbags' messages, and
the shapes of :mod:`kizzasi_edge.ros2.cdr`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kizzasi_edge.errors import ConfigError

_PART = r"\w+(?:\[[^\[\]]+\])?"
_CHANNEL = re.compile(rf"(?P<topic>/[^:]+):(?P<path>{_PART}(?:\.{_PART})*)")
_NAMES = ("name", "joint_names", "interface_names")

Way = tuple[tuple[str, str | None], ...]
"""Field names from the outside in, each with an element (a name, or a number) or None."""


@dataclass(frozen=True)
class Channel:
    """A topic, and the way into its messages."""

    topic: str
    path: Way

    def __str__(self) -> str:
        return f"{self.topic}:" + ".".join(name if e is None else f"{name}[{e}]" for name, e in self.path)

    @classmethod
    def parse(cls, text: str, source: str | Path) -> Channel:
        """``/topic:field``, ``/topic:field.field``, with ``[name]`` or ``[number]`` after a sequence.

        Raises:
            ConfigError: it is not of that form; ``source`` says where it stands.
        """
        match = _CHANNEL.fullmatch(text)
        if match is None:
            raise ConfigError(f"{source}: found {text!r}, expected /topic:field, such as /joint_states:position[elbow]")
        parts = (re.fullmatch(r"(\w+)(?:\[(.+)\])?", part) for part in re.findall(_PART, match["path"]))
        return cls(match["topic"], tuple((part[1], part[2]) for part in parts if part is not None))

    def expand(self, message: Any, source: str) -> list[Channel]:
        """Itself, or a channel for each element where the message holds a sequence there. Raises ConfigError."""
        value, names = self.follow(message, source)
        if not hasattr(value, "__len__") or isinstance(value, str):
            return [self]
        *way, (last, _) = self.path
        return [Channel(self.topic, (*way, (last, element))) for element in elements(value, names)]

    def read(self, message: Any, source: str) -> float:
        """The number in a message. Raises ConfigError if it is none."""
        value, _ = self.follow(message, source)
        if not isinstance(value, (int, float, np.number, np.bool_)):
            raise ConfigError(f"{source}: {self} is a {type(value).__name__}, expected a number{_fields(value)}")
        return float(value)

    def follow(self, message: Any, source: str) -> tuple[Any, list[str]]:
        """What is there, and its elements' names: those in `name` (JointState), `joint_names` or `interface_names`
        beside or above it. Raises ConfigError if nothing is there."""
        value: Any = message
        names: list[str] = []
        for name, element in self.path:
            names = names_in(value) or names
            if not hasattr(value, name):
                raise ConfigError(f"{source}: {self} is not there: no {name!r}{_fields(value)}")
            value = getattr(value, name)
            if element is not None:
                known = elements(value, names)
                at = known.index(element) if element in known else int(element) if element.isdecimal() else -1
                if not 0 <= at < len(value):
                    raise ConfigError(
                        f"{source}: {self} is not there; found {len(value)} element(s) {', '.join(names)}"
                    )
                value = value[at]
        return value, names


def parse_channels(texts: Iterable[str], known: dict[str, str], source: str | Path) -> dict[str, Channel]:
    """The channel behind each text: the one ``known`` by that name (a ``channels`` table: our name → channel), else the
    text is one itself. Raises ConfigError."""
    return {text: Channel.parse(known.get(text, text), source) for text in texts}


def names_in(message: Any) -> list[str]:
    """The names that a message gives to the elements of its sequences; [] if it names none."""
    for key in _NAMES:
        found = getattr(message, key, None)
        if isinstance(found, (list, tuple)) and found:
            return list(found)
    return []


def elements(sequence: Any, names: list[str]) -> list[str]:
    """What the elements of a sequence are called: their names, where each has one of its own, or their numbers."""
    return names if len(set(names)) == len(names) == len(sequence) else [str(i) for i in range(len(sequence))]


def _fields(message: Any) -> str:
    """Its fields, for an error message."""
    names = [name for name in getattr(message, "__dataclass_fields__", ()) if not name.startswith("_")]
    return f"; found {', '.join(names)}" if names else ""
