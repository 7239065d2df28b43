"""The nodes of a skeleton as BVH and URDF files have them: read word by word, errors with their lines."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.files import Element, finite, read_xml

__all__ = ["FloatArray", "Node", "bvh_nodes", "urdf_nodes"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Node:
    """A node as a file has it: ``offset (3,)`` from its parent, in the frame ``rotation`` turns its parent's frame to.
    ``place``: where the file says so."""

    name: str
    parent: str | None
    offset: FloatArray
    place: str
    rotation: FloatArray | None = None
    end_site: bool = False


# ---- BVH -------------------------------------------------------------------------------------------------------------

_CHANNELS = tuple(f"{axis}{kind}" for kind in ("position", "rotation") for axis in "XYZ")


class _Words:
    """The words of a file one by one; ``line`` is that of the last one taken."""

    def __init__(self, where: str, text: str) -> None:
        self._words = ((i + 1, word) for i, line in enumerate(text.split("\n")) for word in line.split())
        self._where = where
        self.line = 1

    @property
    def place(self) -> str:
        return f"{self._where}: line {self.line}"

    def take(self, *expected: str) -> str:
        """The next word, one of ``expected`` if any are given; "" at the end of the file if that is expected."""
        self.line, word = next(self._words, (self.line, ""))
        if (expected or not word) and word not in expected:
            wanted = " or ".join(word or "the end of the file" for word in expected) or "a word"
            raise GuardrailError(f"{self.place}: found {word[:40] or 'the end of the file'}; expected {wanted}")
        return word

    def number(self, key: str) -> float:
        word = self.take()
        return finite(f"{self.place}: {key}", word)


def bvh_nodes(path: str | Path) -> list[Node]:
    """The joints and End Sites of a BVH's HIERARCHY, in file order. Raises :class:`GuardrailError` with the line."""
    try:
        words = _Words(str(path), Path(path).read_text("utf-8-sig"))
    except FileNotFoundError:
        raise GuardrailError(f"{path}: no such file") from None
    except (OSError, ValueError) as exc:
        raise GuardrailError(f"{path}: cannot be read: {exc}") from None
    nodes: list[Node] = []
    open_: list[str] = []
    words.take("HIERARCHY")
    word = words.take("ROOT")
    while True:
        end = word == "End"
        name = f"{open_[-1]}_end" if end and words.take("Site") else words.take()
        place, parent = words.place, open_[-1] if open_ else None
        words.take("{")
        words.take("OFFSET")
        offset = np.array([words.number("OFFSET") for _ in range(3)])
        if not end:
            words.take("CHANNELS")
            for _ in range(int(words.take(*"0123456"))):
                words.take(*_CHANNELS)
        nodes.append(Node(name, parent, offset, place, end_site=end))
        open_.append(name)
        word = words.take("}") if end else words.take("JOINT", "End", "}")
        while word == "}":
            open_.pop()
            if not open_:
                words.take("MOTION", "")
                return nodes
            word = words.take("JOINT", "End", "}")


# ---- URDF ------------------------------------------------------------------------------------------------------------


def urdf_nodes(path: str | Path) -> list[Node]:
    """The links of a URDF: roots first, then by joint in file order. Raises :class:`GuardrailError` with the line."""
    root = read_xml(Path(path))
    links = root.findall("link") if root.tag == "robot" else []
    if not links:
        raise GuardrailError(f"{path}: no <link> in a <robot> found")
    names = {link.get("name", "") for link in links}
    nodes: list[Node] = []
    for joint in root.findall("joint"):
        place = f"{path}: line {_line(joint)}: joint {joint.get('name', '')!r}"
        kind = joint.get("type", "")
        if kind not in ("revolute", "continuous", "fixed"):
            raise GuardrailError(f"{place}: type: found {kind!r}; expected a joint that keeps its bone's length")
        ends = [_attributes(joint, end).get("link", "") for end in ("parent", "child")]
        for end, link in zip(("parent", "child"), ends, strict=True):
            if link not in names:
                raise GuardrailError(f"{place}: <{end}> link: found {link!r}; expected the name of a <link>")
        origin = _attributes(joint, "origin")
        offset, rpy = (_triple(origin.get(key, "0 0 0"), place, key) for key in ("xyz", "rpy"))
        nodes.append(Node(ends[1], ends[0], offset, place, _rotation(rpy)))
    children = {node.name for node in nodes}
    roots = [
        Node(name, None, np.zeros(3), f"{path}: line {_line(link)}")
        for link in links
        if (name := link.get("name", "")) not in children
    ]
    return roots + nodes


def _line(element: ET.Element) -> int:
    return element.line if isinstance(element, Element) else 0


def _attributes(element: ET.Element, tag: str) -> dict[str, str]:
    child = element.find(tag)
    return {} if child is None else child.attrib


def _triple(text: str, place: str, key: str) -> FloatArray:
    words = text.split()
    if len(words) != 3:
        raise GuardrailError(f"{place}: <origin> {key}: found {text[:40]!r}; expected three numbers")
    return np.array([finite(f"{place}: <origin> {key}", word) for word in words])


def _rotation(rpy: FloatArray) -> FloatArray:
    """Fixed-axis roll, pitch, yaw, as the URDF specification has them: Rz·Ry·Rx."""
    (sr, sp, sy), (cr, cp, cy) = np.sin(rpy), np.cos(rpy)
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )
