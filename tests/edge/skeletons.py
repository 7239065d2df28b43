"""What the tests of bones, of their files and of their guard share: a skeleton, and how a pose is judged."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kizzasi_edge.guardrails.skeleton import Skeleton

Array = npt.NDArray[np.float64]

# A skeleton like those of CMU's motion-capture files, in inches: zero offsets where a joint only turns another.
LEG = [("HipJoint", 0, 0, 0), ("UpLeg", 1.36, -1.79, 0.84), ("Leg", 2.45, -6.73, 0), ("Foot", 2.56, -7.04, 0)]
LEG += [("ToeBase", 0.17, -0.46, 2.1)]
SPINE = [("LowerBack", 0, 0, 0), ("Spine", 0.02, 2.03, -0.12), ("Spine1", 0.04, 2.04, -0.12)]
HEAD = [("Neck", 0, 0, 0), ("Neck1", -0.05, 1.75, 0.23), ("Head", 0.12, 1.76, -0.35)]
ARM = [("Shoulder", 0, 0, 0), ("Arm", 3.36, 1.2, -0.31), ("ForeArm", 4.98, 0, 0), ("Hand", 3.48, 0, 0)]
ARM += [("FingerBase", 0, 0, 0), ("HandIndex1", 0.71, 0, 0)]


def cmu_bvh() -> str:
    lines = ["HIERARCHY", "ROOT Hips", "{", "OFFSET 0.00000 0.00000 0.00000"]
    lines += ["CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation"]

    def chain(prefix: str, joints: list[tuple[str, float, float, float]], side: int, middle: str = "") -> None:
        for name, x, y, z in joints:
            lines.extend([f"JOINT {prefix}{name}", "{", f"OFFSET {side * x:.5f} {y:.5f} {z:.5f}"])
            lines.append("CHANNELS 3 Zrotation Yrotation Xrotation")
        if middle:
            chain("", HEAD, 1)
            chain("Left", ARM, 1)
            chain("Right", ARM, -1)
        else:
            lines.extend(["End Site", "{", "OFFSET 0.00000 0.40000 0.30000", "}"])
        lines.extend(["}"] * len(joints))

    chain("L", LEG, 1)
    chain("R", LEG, -1)
    chain("", SPINE, 1, middle="here")
    return "\n".join([*lines, "}", "MOTION", "Frames: 0", "Frame Time: .0083333", ""])


def cmu_human(folder: Path) -> Skeleton:
    """In metres, with elbows, knees and head that bend only so far."""
    path = folder / "cmu.bvh"
    path.write_text(cmu_bvh())
    skeleton = Skeleton.from_bvh(path, scale=0.0564)
    bends = {"LLeg": 0.9, "RLeg": 0.9, "LFoot": 2.5, "RFoot": 2.5, "LeftForeArm": 2.6, "RightForeArm": 2.6, "Head": 1.0}
    return skeleton.with_cones(bends)


def two_bones(cone: float) -> Skeleton:
    return Skeleton(
        ("a", "b", "c"), (-1, 0, 1), np.ones(3), np.tile([1.0, 0, 0], (3, 1)), np.array([4, 4, cone]).clip(0, np.pi)
    )


def unit(v: Array) -> Array:
    return np.asarray(v / np.linalg.norm(v))


def angle(a: Array, b: Array) -> float:
    """Kahan's: precise at all angles."""
    a, b = unit(a), unit(b)
    return 2 * math.atan2(float(np.linalg.norm(a - b)), float(np.linalg.norm(a + b)))


def length_error(skeleton: Skeleton, pose: Array) -> float:
    """Largest | |bone| - L | / max(1, L), without rounding of its own: |bone|² - L² in rational numbers."""
    worst = 0.0
    for i, p in enumerate(skeleton.parents[1:], 1):
        length = Fraction(float(skeleton.lengths[i]))
        square = sum((Fraction(float(a)) - Fraction(float(b))) ** 2 for a, b in zip(pose[i], pose[p], strict=True))
        worst = max(worst, abs(float(square - length**2)) / float(2 * length) / max(1.0, float(length)))
    return worst


def cone_excess(skeleton: Skeleton, pose: Array) -> float:
    pairs = [(i, p) for i, p in enumerate(skeleton.parents) if p > 0]
    return max(
        (angle(pose[p] - pose[skeleton.parents[p]], pose[i] - pose[p]) - skeleton.cones[i] for i, p in pairs), default=0
    )
