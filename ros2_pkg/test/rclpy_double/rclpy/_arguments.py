"""``--ros-args``: remapping rules and parameters, from a command line or a launch file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from rclpy._names import expand_topic_name
from rclpy._rclpy_pybind11 import RCLInvalidROSArgsError, UnknownROSArgsError

_FLAG, _END = "--ros-args", "--"
_TAKES = {"-r": "remap", "--remap": "remap", "-p": "param", "--param": "param", "--params-file": "file"}
_IGNORED = {"--log-level", "--log-file-name", "--log-config-file", "-e", "--enclave"}
_SWITCHES = re.compile(r"--(enable|disable)-(rosout-logs|stdout-logs|external-lib-logs)")


@dataclass(frozen=True)
class Rule:
    """``[node:]source:=target``."""

    node: str | None
    source: str
    target: str


@dataclass
class Arguments:
    """``parameters``: (pattern of fully qualified node names, parameter, value), a later one wins."""

    rules: list[Rule] = field(default_factory=list)
    parameters: list[tuple[str, str, Any]] = field(default_factory=list)

    def own_name(self, source: str, node: str) -> str | None:
        """What ``__node`` or ``__ns`` is remapped to."""
        targets = [rule.target for rule in self.rules if rule.source == source and rule.node in (None, node)]
        return targets[0] if targets else None

    def topic(self, name: str, node: str, namespace: str) -> str:
        """An absolute name after the first rule that fits it."""
        for rule in self.rules:
            if not rule.source.startswith("__") and rule.node in (None, node):
                source = re.sub(r"^ros(topic|service)://", "", rule.source)
                if expand_topic_name(source, node, namespace) == name:
                    return expand_topic_name(rule.target, node, namespace)
        return name

    def overrides(self, full_name: str) -> dict[str, Any]:
        """Parameter → value, for one node."""
        return {key: value for pattern, key, value in self.parameters if _fits(pattern, full_name)}


def parse(arguments: Sequence[str]) -> Arguments:
    """Raises RCLInvalidROSArgsError for what has no form, UnknownROSArgsError for what is no ROS argument."""
    found = Arguments()
    inside = iter(_ros(arguments))
    for word in inside:
        if word in _IGNORED:
            next(inside, None)
        elif word in _TAKES:
            value = next(inside, None)
            if value is None:
                raise RCLInvalidROSArgsError(f"Failed to parse ROS arguments: {word} without a value")
            _take(found, _TAKES[word], value)
        elif not _SWITCHES.fullmatch(word):
            raise UnknownROSArgsError(f"Found unknown ROS arguments: [{word}]")
    return found


def others(arguments: Sequence[str]) -> list[str]:
    """The arguments that are not ROS's."""
    kept, ours = [], False
    for word in arguments:
        if word == _FLAG:
            ours = True
        elif ours and word == _END:
            ours = False
        elif not ours:
            kept.append(word)
    return kept


def _ros(arguments: Sequence[str]) -> Iterator[str]:
    ours = False
    for word in arguments:
        if word == _FLAG:
            ours = True
        elif word == _END:
            ours = False
        elif ours:
            yield word


def _take(found: Arguments, what: str, text: str) -> None:
    if what == "file":
        found.parameters += _parameters_file(text)
        return
    match = re.fullmatch(r"(?:(?P<node>\w+):(?!=|//))?(?P<left>[^=]+?):=(?P<right>.*)", text, re.DOTALL)
    if match is None:
        raise RCLInvalidROSArgsError(f"Failed to parse ROS arguments: {text!r}; expected name:=value")
    if what == "remap":
        found.rules.append(Rule(match["node"], match["left"], match["right"]))
    else:
        pattern = f"/**/{match['node']}" if match["node"] else "/**"
        found.parameters.append((pattern, match["left"], _value(match["right"])))


def _value(text: str) -> Any:
    import yaml

    return _number(yaml.safe_load(text))


def _number(value: Any) -> Any:
    """YAML 1.1 reads ``1e-3`` as a text; ROS as a number."""
    if isinstance(value, str) and re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+", value):
        return float(value)
    return [_number(each) for each in value] if isinstance(value, list) else value


def _parameters_file(path: str) -> list[tuple[str, str, Any]]:
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            content = yaml.safe_load(file)
    except (OSError, yaml.YAMLError) as exc:
        raise RCLInvalidROSArgsError(f"Failed to parse ROS arguments: {path}: {exc}") from None
    return list(_nodes(content, "", path))


def _nodes(content: Any, prefix: str, path: str) -> Iterator[tuple[str, str, Any]]:
    if not isinstance(content, dict):
        raise RCLInvalidROSArgsError(f"Failed to parse ROS arguments: {path}: no ros__parameters under {prefix!r}")
    for key, inside in content.items():
        if key == "ros__parameters":
            for name, value in _flat(inside or {}, ""):
                yield prefix, name, value
        else:
            yield from _nodes(inside, f"{prefix}/{str(key).strip('/')}", path)


def _flat(content: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", _number(value)


def _fits(pattern: str, full_name: str) -> bool:
    """``/**`` any number of names, ``*`` one."""
    expression = re.escape(pattern).replace(r"/\*\*", "(/[^/]+)*").replace(r"\*", "[^/]+")
    return re.fullmatch(expression, full_name) is not None
