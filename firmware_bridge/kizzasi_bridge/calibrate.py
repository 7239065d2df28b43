"""Zero, sign and scale from poses: where a joint was put by hand, and the count that its sensor then had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, linear_regression

from .board_file import RAW_MAX, Counting, scale_of
from .errors import CalibrationError, LinkError
from .link import Link
from .protocol import NodeState

__all__ = ["AGREEMENT", "Fit", "Pose", "fit", "read_count"]

AGREEMENT = 0.02
"""How far the scale of two poses set by hand may be from the file's, relatively, to be taken for the same."""

_SAMPLES, _SPAN_US, _SILENCE_S = 50, 500_000, 2.0
_CLEARLY = 20  # times the uncertainty: the least way between two poses that a scale is taken from
_U32 = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Pose:
    """``at``: where the joint was, SI; ``count``: mean raw value there; ``spread``: largest minus smallest."""

    at: float
    count: float
    spread: int


@dataclass(frozen=True, slots=True)
class Fit:
    """What poses say about a sensor.

    Attributes:
        values: the keys of its section that change, with their new values.
        scale: signed SI units per count; zero: the count at SI 0. Both as the section then says.
        residual: the farthest that a pose reads from where it was, SI.
        ratio: the scale that the poses say over that of the file, without sign; None after one pose.
    """

    values: dict[str, int | float]
    scale: float
    zero: int
    residual: float
    ratio: float | None

    @property
    def agrees(self) -> bool:
        """Whether the poses bear out the file's scale, as far as they can."""
        return self.ratio is None or abs(self.ratio - 1) <= AGREEMENT


def read_count(link: Link, sensor: int, *, noise: float) -> tuple[float, int]:
    """Mean and spread of a sensor's raw values over half a second of the board's time and at least 50 STATEs.

    Raises:
        CalibrationError: they spread over more than ``noise`` counts, or drift: the joint moves.
        LinkError: no STATE comes, or the board is ARMED.
    """
    times, counts = list[int](), list[int]()
    after, began, passed_us = link.latest.count if link.latest else 0, 0, 0
    while len(counts) < _SAMPLES or passed_us < _SPAN_US:
        state = link.wait_state(after, _SILENCE_S)
        if state is None:
            raise LinkError(f"port {link.port}: no STATE for {_SILENCE_S:g} s")
        if state.state == NodeState.ARMED:
            raise LinkError(
                f"port {link.port}: the board is ARMED; disarm it, nobody reaches into a machine that moves"
            )
        after, began = state.count, began if counts else state.t_us
        passed_us = (state.t_us - began) & _U32
        times.append(passed_us)
        counts.append(int(state.sensors[sensor]))
    spread = max(counts) - min(counts)
    drift = abs(linear_regression(times, counts).slope) * passed_us
    if drift > max(2.0, 0.6 * spread):  # steady motion drifts by its whole spread, noise by a tenth
        raise CalibrationError(f"it moves: the count drifts by {drift:.0f} in {_SPAN_US / 1e6:g} s; hold it still")
    if spread > noise:
        raise CalibrationError(f"it moves or is noisy: the count spreads over {spread}, at most {noise:.0f} is allowed")
    return fmean(counts), spread


def fit(counting: Counting, poses: Sequence[Pose], *, refit: bool = False) -> Fit:
    """One pose gives the zero, more give the sign as well, and show whether the scale is right.

    Args:
        counting: the section of the file that says how the sensor counts now.
        poses: at least one.
        refit: take gear, or quantum, from the poses instead of the file.

    Raises:
        CalibrationError: the poses are too close to each other, or the zero is out of the node's range.
    """
    values: dict[str, int | float] = {}
    scale, ratio = counting.scale, None
    if len(poses) > 1:
        measured = _measured_scale(poses)
        ratio = abs(measured / scale)
        if refit:
            values |= _new_size(counting, abs(measured))
        size, gear = values.get("quantum", getattr(counting, counting.size)), values.get("gear", counting.gear)
        sign = 1 if measured > 0 else -1
        scale = sign * scale_of(counting.size, size, gear)
        values["sign"] = sign
    elif refit:
        raise CalibrationError("one pose says nothing about the scale; a second one is needed")
    zero = round(fmean(pose.count - pose.at / scale for pose in poses))
    if abs(zero) > RAW_MAX:
        raise CalibrationError(f"its zero would be at count {zero}; the node guards nothing beyond ±{RAW_MAX}")
    values["zero"] = zero
    changed = {key: value for key, value in values.items() if value != getattr(counting, key)}
    residual = max(abs((pose.count - zero) * scale - pose.at) for pose in poses)
    return Fit(changed, scale, zero, residual, ratio)


def _measured_scale(poses: Sequence[Pose]) -> float:
    """SI per count by least squares, of counts over places: the places are what is known."""
    where, count = fmean(pose.at for pose in poses), fmean(pose.count for pose in poses)
    way = sum((pose.at - where) ** 2 for pose in poses)
    if not way:
        raise CalibrationError("all poses are at one place; another one is needed")
    slope = sum((pose.at - where) * (pose.count - count) for pose in poses) / way
    apart = abs(slope) * (max(pose.at for pose in poses) - min(pose.at for pose in poses))
    uncertain = max(pose.spread for pose in poses) + 1
    if apart < _CLEARLY * uncertain:
        raise CalibrationError(
            f"the count differs by {apart:.0f} between the poses, and is uncertain by {uncertain}: "
            "is this the joint that was moved, and far enough?"
        )
    return 1 / slope


def _new_size(counting: Counting, scale: float) -> dict[str, int | float]:
    """gear or quantum that makes a count ``scale`` SI units; in six digits, for no pose set by hand has more."""
    if counting.size == "quantum":
        return {"quantum": float(f"{scale:.6g}")}
    size = getattr(counting, counting.size)
    return {"gear": float(f"{scale_of(counting.size, size, None) / scale:.6g}")}
