"""Models gone wrong: policies that stand between the real one and the guard, to show that the guard holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from kizzasi_edge.errors import ConfigError
from kizzasi_edge.loop import Policy
from kizzasi_edge.predictor import Predictor

FloatArray = npt.NDArray[np.float32]

ADVERSARIES = ("random", "stuck", "nan", "model-swap")
GRACE_TICKS = 500
"""Steps after a reset (arming) during which the model is left alone, so that the arm is moving when it goes wrong."""


class Random:
    """Positions far beyond the limits, jumping: sometimes every tick, sometimes held for up to a second."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self._rng = rng
        self._held = np.zeros(size, np.float32)
        self._left = 0

    def corrupt(self, y: FloatArray, x: FloatArray) -> FloatArray:
        if self._left == 0:
            self._held[:] = self._rng.uniform(-10.0, 10.0, self._held.size)
            self._left = int(self._rng.choice([1, 1, 5, 50, 500]))
        self._left -= 1
        return self._held


class Stuck:
    """The output freezes at whatever it was, and stays there while the targets move on."""

    def __init__(self, size: int) -> None:
        self._frozen = np.full(size, np.nan, np.float32)

    def corrupt(self, y: FloatArray, x: FloatArray) -> FloatArray:
        if np.isnan(self._frozen[0]):
            self._frozen[:] = y
        return self._frozen


class NotANumber:
    """Bursts of NaN and Inf, in one output or in all, of 1 to 40 ticks with clean ticks between."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self._rng = rng
        self._y = np.zeros(size, np.float32)
        self._left = 0
        self._clean = True

    def corrupt(self, y: FloatArray, x: FloatArray) -> FloatArray:
        if self._left == 0:
            self._clean = not self._clean
            self._left = int(self._rng.integers(1, 200 if self._clean else 41))
        self._left -= 1
        self._y[:] = y
        if not self._clean:
            where = slice(None) if self._left % 2 else int(self._rng.integers(self._y.size))
            self._y[where] = self._rng.choice([np.nan, np.inf, -np.inf])
        return self._y


class ModelSwap:
    """Another model of the same shape answers: here, the same architecture without training."""

    def __init__(self, model: Path) -> None:
        self._other = Predictor(model)

    def corrupt(self, y: FloatArray, x: FloatArray) -> FloatArray:
        return self._other.propose(x)


class Sabotaged:
    """A :class:`~kizzasi_edge.loop.Policy` whose output goes wrong some time after each arming, and stays wrong."""

    def __init__(self, policy: Predictor, adversary: str, untrained: Path, seed: int = 0) -> None:
        size = len(policy.output_names)
        rng = np.random.default_rng(seed)
        self.output_names = policy.output_names
        self._policy: Policy = policy
        self._steps = 0
        if adversary == "random":
            self._adversary: Random | Stuck | NotANumber | ModelSwap = Random(size, rng)
        elif adversary == "stuck":
            self._adversary = Stuck(size)
        elif adversary == "nan":
            self._adversary = NotANumber(size, rng)
        elif adversary == "model-swap":
            self._adversary = ModelSwap(untrained)
        else:
            raise ConfigError(f"--adversary: found {adversary!r}; expected one of {list(ADVERSARIES)}")

    def propose(self, x: FloatArray) -> FloatArray:
        y = self._policy.propose(x)
        self._steps += 1
        return y if self._steps <= GRACE_TICKS else self._adversary.corrupt(y, x)

    def reset(self) -> None:
        self._steps = 0
        self._policy.reset()
