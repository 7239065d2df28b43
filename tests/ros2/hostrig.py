"""A node in this process and what it sends, judged in quanta."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from ddsrig import until

from kizzasi_edge.connectors.host_node import HostNode
from kizzasi_edge.errors import ConnectorError, LinkError
from kizzasi_edge.frames import Command
from kizzasi_edge.guardrails import Guardrails

I64 = npt.NDArray[np.int64]

RATE_HZ = 200
START = np.array([0.05, -0.1])


def velocity_guard(*, turns: bool = False, **guard: Any) -> Guardrails:
    """Two joints with a range, or two wheels that have none."""
    builder = Guardrails.builder(rate_hz=RATE_HZ, velocity_scale=1.0, command="velocity", **{"miss_budget": 3, **guard})
    for name, reach in (("pan", 0.4), ("lift", 0.3)):
        builder.joint(name, position=None if turns else (-reach, reach), velocity=1.5, acceleration=10.0)
    return builder.build()


def command(guard: Guardrails, *values: float, age_s: float = 0.0) -> Command:
    array = np.array(values, np.float32)
    stamp_ns = time.monotonic_ns() - round(age_s * 1e9)
    return Command(stamp_ns, 1, guard.output_names, array, np.ones(len(array), np.bool_))


class Sent:
    """What a node sent, in its guard's quanta, which it is exactly; ``broken`` makes the wire fail."""

    def __init__(self, guard: Guardrails) -> None:
        self.guard = guard
        self.rows: list[npt.NDArray[np.float32]] = []
        self.broken = False

    def __call__(self, values: npt.NDArray[np.float32]) -> None:
        if self.broken:
            raise ConnectorError("gone")
        self.rows.append(values.copy())

    @property
    def quanta(self) -> I64:
        return in_quanta(self.guard, self.rows)


def in_quanta(guard: Guardrails, rows: Any) -> I64:
    found = np.array(rows, np.float64).reshape(-1, len(guard.joints)) / guard.quanta
    assert (found == np.rint(found)).all()
    return found.astype(np.int64)


def violations(guard: Guardrails, sent: I64, start: npt.ArrayLike | None = None) -> int:
    """Of the speed, of its change from rest and to rest, and (with a ``start`` [rad]) of the range, if the joints do
    what they are told."""
    lo, hi, w, h = (np.array([getattr(cell, key) for cell in guard.node], np.int64) for key in ("lo", "hi", "w", "h"))
    none = np.zeros((1, sent.shape[1]), np.int64)
    change = np.diff(np.vstack([none, sent, none]), axis=0)
    found = int((abs(sent) > w).sum() + (abs(change) > h).sum())
    if start is not None:
        q = np.rint(np.asarray(start, np.float32).astype(np.float64) * guard.rate_hz / guard.quanta).astype(np.int64)
        q = q + np.cumsum(sent, axis=0)
        found += int((q < lo).sum() + (q > hi).sum())
    return found


@contextmanager
def node(guard: Guardrails, sent: Sent, **options: Any) -> Iterator[HostNode]:
    made = HostNode(guard, guard.rate_hz, sent, **{"ttl_s": 5.0, "arm_ttl_s": 5.0, **options})
    try:
        yield made
    finally:
        made.close()
    assert not any(thread.name == "host-node" for thread in threading.enumerate())


class Joints:
    """Joints that do what a node says it applied; measured exactly."""

    def __init__(self, made: HostNode, guard: Guardrails, start: npt.ArrayLike = START) -> None:
        self.made, self.unit = made, guard.quanta / guard.rate_hz
        self.q = np.rint(np.array(start, np.float32) / self.unit).astype(np.int64)
        self._sent = 0

    def measure(self, rows: I64) -> None:
        """Go by what was sent since, and be measured."""
        self.q += rows[self._sent :].sum(axis=0)
        self._sent = len(rows)
        self.made.place((self.q * self.unit).astype(np.float32))


def cleared(made: HostNode) -> bool:
    """A node knows of rest after ESTOP only when it has seen it for a while."""
    try:
        made.clear()
    except LinkError as error:
        if "NOT_AT_REST" not in str(error):
            raise
        return False
    return True


def quiet(sent: Sent, made: HostNode) -> bool:
    """Nothing is sent for some periods."""
    before, seen = len(sent.rows), made.wait(5.0)
    while seen < 10:
        seen += made.wait(5.0)
    return len(sent.rows) == before


def ends_quietly(sent: Sent, made: HostNode) -> None:
    until(lambda: made.motion() is None)
    until(lambda: quiet(sent, made))
