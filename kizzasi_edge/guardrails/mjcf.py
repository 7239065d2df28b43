"""Joint limits from an MJCF model (https://mujoco.readthedocs.io/en/stable/XMLreference.html), by ElementTree.

Read: ``range`` and ``limited`` of joints, ``actuatorfrcrange``, and of the actuators on joints ``forcerange`` and
``ctrlrange``; with default classes, ``childclass``, ``<frame>``, ``<include>`` and the compiler's ``angle`` and
``autolimits``. What makes joints in other ways (attach, composite, flexcomp, replicate) is refused. MJCF knows no
limits of velocity and acceleration, and its ``<equality>`` is not read.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.bounds import JointBounds, symmetric
from kizzasi_edge.guardrails.files import MAX_DEPTH, finite, read_xml

MAIN = "main"
MAKERS = ("attach", "composite", "flexcomp")
Attributes = dict[str, str]


def read_mjcf(path: str | Path) -> tuple[JointBounds, ...]:
    """The hinge and slide joints that actuators drive, in MuJoCo's order; all of them in a model without actuators.

    An unlimited joint has no range. Effort is the force at the joint: the smallest of its ``actuatorfrcrange``, and
    gear times the ``forcerange`` of each of its actuators, or times the ``ctrlrange`` of a ``<motor>``. The
    ``ctrlrange`` of a ``<position>`` or ``<velocity>`` actuator tightens the position or the velocity.
    Raises :class:`GuardrailError` naming the file, the element and the attribute.
    """
    path = Path(path)
    root = read_xml(path)
    if root.tag != "mujoco":
        raise GuardrailError(f"{path}: root element is <{root.tag}>; expected <mujoco>")
    _include(root, path, path.parent, {path.resolve()}, 1)
    return _Model(path, root).joints()


def _include(element: ET.Element, file: Path, base: Path, seen: set[Path], depth: int) -> None:
    """Replace each ``<include>`` by what its file holds. As MuJoCo does: paths from the main file, else from here."""
    if depth > MAX_DEPTH:
        raise GuardrailError(f"{file}: more than {MAX_DEPTH} nested elements")
    children: list[ET.Element] = []
    for child in element:
        if child.tag != "include":
            _include(child, file, base, seen, depth + 1)
            children.append(child)
            continue
        name = child.get("file", "")
        if not name or "\0" in name:
            raise GuardrailError(f"{file}: <include> file: found {name!r}; expected the name of a file")
        path = base / name if (base / name).is_file() else file.parent / name
        if path.resolve() in seen:
            raise GuardrailError(f"{file}: <include> file: {path} is included twice")
        seen.add(path.resolve())
        try:
            inner = read_xml(path)
        except GuardrailError as exc:
            raise GuardrailError(f"{file}: <include> file: {exc}") from None
        _include(inner, path, base, seen, depth)
        children += inner
    element[:] = children


class _Model:
    def __init__(self, path: Path, root: ET.Element) -> None:
        self.path, self.root = path, root
        self.compiler: Attributes = {}
        for element in root.iterfind("compiler"):
            self.compiler.update(element.attrib)
        self.degrees = self._word(f"{path}: <compiler> angle", self.compiler.get("angle", "degree"), "degree", "radian")
        self.autolimits = self._word(
            f"{path}: <compiler> autolimits", self.compiler.get("autolimits", "true"), "true", "false"
        )
        self.defaults: dict[str, dict[str, Attributes]] = {MAIN: {"joint": {}, "actuator": {}}}
        for element in root.iterfind("default"):
            if element.get("class", MAIN) != MAIN:
                raise GuardrailError(
                    f"{path}: <default> class: found {element.get('class')!r}; the outermost is 'main'"
                )
            self._read_defaults(element, self.defaults[MAIN])

    def joints(self) -> tuple[JointBounds, ...]:
        found: dict[str, JointBounds] = {}
        others: set[str] = set()
        drives = [element for section in self.root.iterfind("actuator") for element in section if _driven(element)]
        driven = {_driven(element) for element in drives}
        for element, childclass in self._walk():
            values = self._values("joint", element, childclass)
            name, kind = values.get("name", ""), values.get("type", "hinge")
            if name in found or (name and name in others):
                raise GuardrailError(f"{self.path}: joint {name!r}: declared twice")
            if kind not in ("hinge", "slide") or (drives and name not in driven):
                others.add(name)
            elif not name:
                raise GuardrailError(f"{self.path}: a {kind} joint has no name")
            else:
                found[name] = self._joint(name, kind, values)
        for element in drives:
            name = _driven(element) or ""
            if name in found:
                where = f"{self.path}: joint {name!r}"
                found[name] = found[name].tightened(self._actuator(name, element)).checked(f"{where}: <{element.tag}>")
            elif name not in others:
                raise GuardrailError(f"{self.path}: <{element.tag}> joint: found {name!r}; no such joint in this file")
        if not found:
            raise GuardrailError(f"{self.path}: no hinge or slide joint found that an actuator drives")
        return tuple(found.values())

    def _walk(self) -> Iterator[tuple[ET.Element, str]]:
        """Joints in MuJoCo's order with the class in force: those of a body, then those of the bodies inside."""
        for world in self.root.iterfind("worldbody"):
            yield from self._walk_body(world, MAIN)

    def _walk_body(self, body: ET.Element, childclass: str) -> Iterator[tuple[ET.Element, str]]:
        content = list(self._flat(body, body.get("childclass", childclass)))
        yield from ((element, inner) for element, inner in content if element.tag == "joint")
        for element, inner in content:
            if element.tag == "body":
                yield from self._walk_body(element, inner)

    def _flat(self, parent: ET.Element, childclass: str) -> Iterator[tuple[ET.Element, str]]:
        for element in parent:
            if element.tag in MAKERS or (element.tag == "replicate" and element.find(".//joint") is not None):
                raise GuardrailError(
                    f"{self.path}: <{element.tag}>: makes joints that are not written down; save the compiled model "
                    "(mj_saveLastXML) and use that"
                )
            if element.tag == "frame":
                yield from self._flat(element, element.get("childclass", childclass))
            else:
                yield element, childclass

    def _read_defaults(self, element: ET.Element, values: dict[str, Attributes]) -> None:
        for child in element:
            if child.tag != "default":
                # MuJoCo keeps one set of defaults for actuators of every kind.
                values.setdefault("joint" if child.tag == "joint" else "actuator", {}).update(
                    child.attrib if child.tag == "joint" else {k: v for k, v in child.attrib.items() if k in _ACTUATOR}
                )
        for child in element.iterfind("default"):
            name = child.get("class", "")
            if not name or name in self.defaults:
                raise GuardrailError(f"{self.path}: <default> class: found {name!r}; expected a new name")
            self.defaults[name] = {tag: dict(inherited) for tag, inherited in values.items()}
            self._read_defaults(child, self.defaults[name])

    def _values(self, tag: str, element: ET.Element, childclass: str) -> Attributes:
        name = element.get("class", childclass)
        if name not in self.defaults:
            raise GuardrailError(f"{self.path}: <{element.tag}> class: found {name!r}; no such default class")
        return {**self.defaults[name][tag], **element.attrib}

    def _joint(self, name: str, kind: str, values: Attributes) -> JointBounds:
        where = f"{self.path}: joint {name!r}"
        lower, upper = self._range(where, values, "range", "limited")
        if kind == "hinge" and self.degrees:
            lower, upper = math.radians(lower), math.radians(upper)
        effort = symmetric(*self._range(where, values, "actuatorfrcrange", "actuatorfrclimited"))
        return JointBounds(name, lower, upper, effort=effort).checked(where)

    def _actuator(self, name: str, element: ET.Element) -> JointBounds:
        where, values = f"{self.path}: <{element.tag}> of joint {name!r}", self._values("actuator", element, MAIN)
        gear = abs(finite(f"{where}: gear", (values.get("gear", "").split() or ["1"])[0]))
        force = self._range(where, values, "forcerange", "forcelimited")
        control = self._range(where, values, "ctrlrange", "ctrllimited")
        bounds = JointBounds(name, effort=_times(symmetric(*force), gear))
        if element.tag == "motor":
            return bounds.tightened(JointBounds(name, effort=_times(symmetric(*control), gear)))
        if gear == 0.0:
            return bounds
        if element.tag == "position":
            ends = control if not values.get("gear", "").lstrip().startswith("-") else (-control[1], -control[0])
            return bounds.tightened(JointBounds(name, ends[0] / gear, ends[1] / gear))
        if element.tag in ("velocity", "intvelocity"):
            return bounds.tightened(JointBounds(name, velocity=symmetric(*control) / gear))
        return bounds

    def _range(self, where: str, values: Attributes, key: str, flag: str) -> tuple[float, float]:
        """``key`` where it is in force, else infinite."""
        words = values.get(key, "0 0").split()
        if len(words) != 2:
            raise GuardrailError(f"{where}: {key}: found {values[key]!r}; expected two numbers")
        lower, upper = (finite(f"{where}: {key}", word) for word in words)
        given, limited = (lower, upper) != (0.0, 0.0), values.get(flag, "auto")
        if limited != "auto":
            given = self._word(f"{where}: {flag}", limited, "true", "false")
        elif given and not self.autolimits:
            raise GuardrailError(f'{where}: {key} without {flag} while autolimits="false"; say true or false')
        if given and lower >= upper:
            raise GuardrailError(f"{where}: {key}: {lower:g} is not below {upper:g}")
        return (lower, upper) if given else (-math.inf, math.inf)

    def _word(self, where: str, found: str, yes: str, no: str) -> bool:
        if found not in (yes, no):
            raise GuardrailError(f"{where}: found {found!r}; expected {yes!r} or {no!r}")
        return found == yes


_ACTUATOR = frozenset(("forcerange", "forcelimited", "ctrlrange", "ctrllimited", "gear"))


def _driven(actuator: ET.Element) -> str | None:
    return actuator.get("joint") or actuator.get("jointinparent")


def _times(force: float, gear: float) -> float:
    return force if math.isinf(force) else force * gear
