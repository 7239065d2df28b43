"""A skeleton: a tree of nodes and the bones between them, from a BVH, a URDF or a guard file (docs/bones.md).

BVH: Biovision's HIERARCHY section as CMU's motion-capture files have it; its MOTION is not read. URDF:
http://wiki.ros.org/urdf/XML, links as nodes, joint origins as bones. Guard file: a ``tree`` of nodes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.skeleton_files import FloatArray, Node, bvh_nodes, urdf_nodes

if TYPE_CHECKING:
    from kizzasi_edge.guardrails.spec import BoneSection

__all__ = ["EXTENT", "MAX_NODES", "SHORTEST", "Skeleton"]

MAX_NODES = 128
"""``KZ_BONES_MAX`` of kz_bones.h."""
EXTENT = 4096.0
"""Longest chain of bones: ``KZ_BONES_EXTENT`` of kz_bones.h."""
SHORTEST = 1e-6
"""A shorter bone counts as one of length zero."""


@dataclass(frozen=True, eq=False)
class Skeleton:
    """A tree of ``n`` nodes, the root first and every parent before its children.

    ``names``; ``parents``: index of each node's parent, −1 for the root; ``lengths (n,)`` of the bone that ends at
    each node, in the unit of the positions (the root's is 0); ``rest_directions (n, 3)`` of those bones, unit
    vectors in the world frame of the rest pose; ``cones (n,)``: largest angle [rad] between a bone and its parent's
    bone, π where it is free (always on the root and its children, which have no parent's bone). ``merged``: nodes of
    the file that lay on their parent, and the node that stands for them.

    Raises :class:`GuardrailError` naming ``where`` and the node.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    lengths: FloatArray
    rest_directions: FloatArray
    cones: FloatArray
    merged: Mapping[str, str] = field(default_factory=dict)
    where: str = "skeleton"

    def __post_init__(self) -> None:
        n = len(self.names)
        if not 1 <= n <= MAX_NODES:
            raise GuardrailError(f"{self.where}: found {n} nodes; expected 1 to {MAX_NODES}")
        if twice := [name for name, count in Counter(self.names).items() if count > 1]:
            raise GuardrailError(f"{self.where}: nodes {twice} are there twice; expected different names")
        if len(self.parents) != n:
            raise GuardrailError(f"{self.where}: found {len(self.parents)} parents; expected {n}, one per node")
        for key, shape in (("lengths", (n,)), ("rest_directions", (n, 3)), ("cones", (n,))):
            array = np.array(getattr(self, key), np.float64)
            if array.shape != shape:
                raise GuardrailError(f"{self.where}: {key}: found shape {array.shape}; expected {shape}")
            object.__setattr__(self, key, array)
        reach = [0.0] * n
        for i, (name, parent) in enumerate(zip(self.names, self.parents, strict=True)):
            if not (parent == -1 if i == 0 else 0 <= parent < i):
                text = "-1: the root comes first" if i == 0 else f"0 to {i - 1}: one root, parents before children"
                self._refuse(name, f"parent: found {parent}; expected {text}")
            if i:
                reach[i] = reach[parent] + self.lengths[i]
                self._check_bone(i, reach[i])
        self.lengths[0] = 0.0
        self.rest_directions[0] = 0.0
        self.cones[0] = math.pi
        for array in (self.lengths, self.rest_directions, self.cones):
            array.flags.writeable = False

    def _check_bone(self, i: int, reach: float) -> None:
        name, cone, norm = self.names[i], self.cones[i], math.hypot(*self.rest_directions[i])
        if not self.lengths[i] >= SHORTEST:
            self._refuse(name, f"length: found {self.lengths[i]:g}; expected at least {SHORTEST:g}")
        if not reach <= EXTENT:
            self._refuse(name, f"length: {reach:g} from the root along the bones; expected at most {EXTENT:g}")
        if not SHORTEST <= norm < math.inf:
            self._refuse(name, f"direction: found {self.rest_directions[i].tolist()}; expected a finite vector, not 0")
        if not 0 <= cone <= math.pi:
            self._refuse(name, f"cone: found {cone:g}; expected 0 to {math.pi:.6g} rad")
        if cone < math.pi and self.parents[i] == 0:
            self._refuse(name, f"cone: found {cone:g}; its parent is the root, which has no bone to measure it from")
        self.rest_directions[i] /= norm

    def _refuse(self, name: str, text: str) -> NoReturn:
        raise GuardrailError(f"{self.where}: node {name!r}: {text}")

    def with_cones(self, cones: float | Mapping[str, float], where: str | None = None) -> Skeleton:
        """The same skeleton with cones [rad]: one for every bone that has a parent's bone, or by the node where a bone
        ends. ``where``: of what they make of it."""
        if isinstance(cones, Mapping):
            new = self.by_node(cones, math.pi, f"{where or self.where}: cone")
        else:
            new = np.where(np.array(self.parents) > 0, cones, math.pi)
        return replace(self, cones=new, where=where or self.where)

    def by_node(self, given: Mapping[str, float], otherwise: float, place: str) -> FloatArray:
        """A value ``(n,)`` for each node. Raises :class:`GuardrailError` naming ``place`` for other names."""
        if unknown := sorted(given.keys() - set(self.names[1:])):
            merged = f" (merged: {dict(self.merged)})" if self.merged else ""
            raise GuardrailError(
                f"{place}: found {unknown}; expected nodes where a bone ends: {list(self.names[1:])}{merged}"
            )
        return np.array([given.get(name, otherwise) for name in self.names])

    @classmethod
    def from_bvh(cls, path: str | Path, *, scale: float = 1.0, end_sites: bool = True) -> Skeleton:
        """The HIERARCHY of a BVH file; ``scale``: metres per unit of its OFFSETs. An End Site becomes ``<joint>_end``,
        or is left out. Joints with an OFFSET of zero are merged into their parent."""
        used = [node for node in bvh_nodes(path) if end_sites or not node.end_site]
        return _tree([replace(node, offset=node.offset * scale) for node in used], str(path), merge=True)

    @classmethod
    def from_urdf(cls, path: str | Path) -> Skeleton:
        """The links of a URDF, bones along the joints' origins, rest directions at joint angles of zero. Links that
        lie on their parent are merged into it; prismatic, planar and floating joints are refused."""
        return _tree(urdf_nodes(path), str(path), merge=True)

    @classmethod
    def from_tree(cls, tree: Mapping[str, BoneSection], where: str) -> Skeleton:
        """A guard file's ``tree``: by the name of each node its parent, length and direction. ``where`` it stands."""
        return _tree([_node(name, bone, f"{where} {name}") for name, bone in tree.items()], where)


# ---- the tree --------------------------------------------------------------------------------------------------------


def _tree(nodes: Sequence[Node], where: str, *, merge: bool = False) -> Skeleton:
    """Sort parents before children (else in file order), and merge nodes that lie on their parent, if so asked."""
    by_name: dict[str, Node] = {}
    for node in nodes:
        if (first := by_name.setdefault(node.name, node)) is not node:
            raise GuardrailError(f"{node.place}: found node {node.name!r} again (first: {first.place})")
    roots = [node for node in nodes if node.parent is None]
    if len(roots) > 1:
        raise GuardrailError(
            f"{roots[1].place}: found a second root {roots[1].name!r}; expected one ({roots[0].name!r})"
        )
    for node in nodes:
        if node.parent is not None and node.parent not in by_name:
            raise GuardrailError(f"{node.place}: parent: found {node.parent!r}; expected the name of a node")
    kept: dict[str, str] = {}
    rotations: dict[str, FloatArray] = {}
    rows: list[tuple[str, int, float, FloatArray]] = []
    index: dict[str, int] = {}
    for node in _sorted(nodes):
        above = None if node.parent is None else kept[node.parent]
        frame = np.eye(3) if node.parent is None else rotations[node.parent]
        rotations[node.name] = frame if node.rotation is None else frame @ node.rotation
        length = math.hypot(*node.offset)
        if above is not None and length < SHORTEST:
            if not merge:
                raise GuardrailError(f"{node.place}: length: found {length:g}; expected at least {SHORTEST:g}")
            kept[node.name] = above
            continue
        if not length <= EXTENT and above is not None:
            raise GuardrailError(f"{node.place}: length: found {length:g}; expected at most {EXTENT:g}")
        kept[node.name] = node.name
        index[node.name] = len(rows)
        direction = frame @ (node.offset / length) if above is not None else np.zeros(3)
        rows.append((node.name, -1 if above is None else index[above], length, direction))
    names, parents, lengths, directions = zip(*rows, strict=True)
    free = np.full(len(rows), math.pi)
    merged = {name: to for name, to in kept.items() if name != to}
    return Skeleton(names, parents, np.array(lengths), np.array(directions), free, merged, where)


def _sorted(nodes: Sequence[Node]) -> Iterator[Node]:
    done: set[str] = set()
    pending = list(nodes)
    while pending:
        later = []
        for node in pending:
            if node.parent is None or node.parent in done:
                done.add(node.name)
                yield node
            else:
                later.append(node)
        if len(later) == len(pending):
            names = [node.name for node in later[:8]]
            raise GuardrailError(f"{later[0].place}: no root leads to {names}: their parents form a cycle")
        pending = later


# ---- from a guard file -----------------------------------------------------------------------------------------------


def _node(name: str, bone: BoneSection, place: str) -> Node:
    if bone.parent is None:
        if bone.length is not None or bone.direction is not None:
            raise GuardrailError(f"{place}: found a bone without parent; expected a parent, or nothing for the root")
        return Node(name, None, np.zeros(3), place)
    if bone.length is None or bone.direction is None:
        key = "length" if bone.length is None else "direction"
        raise GuardrailError(f"{place} {key}: missing; expected one, as there is a parent")
    norm = math.hypot(*bone.direction)
    if not SHORTEST <= norm < math.inf:
        raise GuardrailError(f"{place} direction: found {bone.direction}; expected a finite vector, not 0")
    if not bone.length <= EXTENT:
        raise GuardrailError(f"{place} length: found {bone.length:g}; expected at most {EXTENT:g}")
    return Node(name, bone.parent, np.array(bone.direction) / norm * bone.length, place)
