"""Rules that couple joints, on the device: also when the loop is late, and the node goes on by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from looprig import QUANTUM, FloatArray, Rig

from kizzasi_edge.guarding import Guarding

RULE = {"kind": "linear", "name": "together", "a": {"lift": 1.0, "pan": -1.0}, "max": 0.05, "min": -0.05}
FAR = 0.05 / QUANTUM


class Wild:
    """A policy that wants to be elsewhere every now and then, and at times thinks for longer than a period."""

    output_names = ("pan/position", "lift/position")

    def __init__(self, rng: np.random.Generator, late: float) -> None:
        self.rng, self.late = rng, late
        self.rig: Any = None
        self.want = np.zeros(2, np.float32)

    def reset(self) -> None: ...

    def propose(self, x: FloatArray) -> FloatArray:
        if self.rng.random() < 0.03:
            self.want = self.rng.uniform(-0.28, 0.28, 2).astype(np.float32)
        while self.rng.random() < self.late:
            self.rig.node.wait(1.0)
        return self.want


def drive(seed: int, late: float) -> tuple[Rig, float]:
    """A run, and by how many quanta the rule was exceeded at worst on what the node applied."""
    policy = Wild(np.random.default_rng(seed), 0.0)
    rig = Rig(policy, rules=[RULE], miss_budget=3)
    policy.rig = rig
    rig.run(5)
    rig.node.arm()
    policy.late = late
    rig.run(3000)
    rig.check_promise()
    lift, pan = np.array(rig.node.applied, np.int64).T
    return rig, float(np.abs(lift - pan).max() - FAR)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("late", [0.0, 0.1, 0.4])
def test_the_rule_holds_on_what_the_node_applies_however_late_the_loop_is(seed: int, late: float) -> None:
    rig, excess = drive(seed, late)
    assert excess <= 0
    assert rig.node.session
    assert (rig.stats.overtaken > 0) == (late > 0)
    assert "together" in rig.stats.interventions


def test_sent_late_all_the_same_it_would_be_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Guarding, "overtaken", lambda _: False)
    assert max(drive(seed, 0.4)[1] for seed in range(4)) > 0
