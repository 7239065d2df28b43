"""Systems to learn that need no files: seeded, of any length, with known answers.

Four are simulated and measured with noise, the targets without and one step ahead (`lorenz`, `mackey_glass`,
`pendulum`, `teleoperation`); three need memory of a known reach (`narma10`, `selective_recall`, `delay_copy`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kizzasi_edge.errors import ConfigError
from kizzasi_export.datasets.section import DataSection
from kizzasi_export.datasets.streams import Recording, Streams

Values = NDArray[np.float64]

PHYSICAL_RATE_HZ = 100.0
"""Steps per second of the physical systems where the export does not say; the others count in steps."""


@dataclass(frozen=True)
class Order:
    """What to make: n recordings of `steps` steps of dt seconds; lag in steps, noise as a share."""

    rng: np.random.Generator
    n: int
    steps: int
    dt: float
    lag: int
    noise: float

    def measured(self, values: Values) -> Values:
        """Values [N, T, k] with white noise, a share of each channel's standard deviation."""
        spread = values.std(axis=(0, 1))  # [k]
        return np.asarray(values + self.noise * spread * self.rng.standard_normal(values.shape))


@dataclass(frozen=True)
class System:
    """Channel names and how to make inputs [N, T, in], outputs [N, T, out], and weight [N, T] or None.

    `option` is the key of ``[data]`` that the system uses beside the sizes; a `physical` one has a rate.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    make: Callable[[Order], tuple[Values, Values, Values | None]]
    option: str | None
    physical: bool = False


def generate(section: DataSection, *, rate_hz: float | None, where: str) -> Streams:
    """``section.recordings`` recordings of ``section.steps`` steps.

    Raises:
        ConfigError: no system, or a memory task whose lag does not fit into a recording.
    """
    if section.system is None:
        raise ConfigError(f"{where}: system: missing; expected one of {', '.join(SYSTEMS)}")
    system = SYSTEMS[section.system]
    if system.option == "lag" and section.steps < 2 * section.lag:
        raise ConfigError(f"{where}: steps: found {section.steps}, expected at least twice the lag = {section.lag}")
    rate = (rate_hz or PHYSICAL_RATE_HZ) if system.physical else None
    rng, dt = np.random.default_rng(section.seed), 1.0 / (rate or 1.0)
    x, y, weight = system.make(Order(rng, section.recordings, section.steps, dt, section.lag, section.noise))
    weights = [None] * len(x) if weight is None else weight.astype(np.float32)
    name = f"generated {section.system}"
    recordings = (
        Recording(xi.astype(np.float32), yi.astype(np.float32), wi, f"{name} {i}")
        for i, (xi, yi, wi) in enumerate(zip(x, y, weights, strict=True))
    )
    keys = used_keys(section) - {"format", "window", "stride"}
    source = {"format": "generated", **{key: getattr(section, key) for key in sorted(keys)}}
    return Streams(tuple(recordings), system.inputs, system.outputs, rate, source)


def used_keys(section: DataSection) -> set[str]:
    """The keys of ``[data]`` that the system uses."""
    option = SYSTEMS[section.system].option if section.system is not None else None
    return {"format", "system", "recordings", "steps", "seed", "window", "stride"} | ({option} if option else set())


def _rk4(rate: Callable[[Values], Values], state: Values, h: float) -> Values:
    """One step of the classical Runge-Kutta method."""
    k1 = rate(state)
    k2 = rate(state + h / 2 * k1)
    k3 = rate(state + h / 2 * k2)
    k4 = rate(state + h * k3)
    return state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def _lorenz(order: Order) -> tuple[Values, Values, None]:
    """Lorenz 1963, Deterministic Nonperiodic Flow: σ = 10, ρ = 28, β = 8/3, a step of 0.02 time units."""

    def rate(state: Values) -> Values:
        x, y, z = state.T  # [N]
        return np.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z], axis=1)

    state = order.rng.standard_normal((order.n, 3)) + np.array([0.0, 0.0, 25.0])  # [N, 3]
    path = np.empty((order.n, order.steps + 1, 3))
    for t in range(-500, order.steps + 1):  # the first 10 time units lead onto the attractor
        if t >= 0:
            path[:, t] = state
        for _ in range(2):
            state = _rk4(rate, state, 0.01)
    return order.measured(path[:, :-1]), path[:, 1:], None


def _mackey_glass(order: Order) -> tuple[Values, Values, None]:
    """Mackey and Glass 1977: ẋ = 0.2 x(t-17) / (1 + x(t-17)¹⁰) - 0.1 x (chaotic), a step of 1 time unit; by Heun."""
    per_step, delay = 10, 170  # steps of 0.1 time units
    warm_up, h = 300 * per_step, 0.1
    x = np.empty((order.n, delay + warm_up + order.steps * per_step + 1))
    x[:, : delay + 1] = order.rng.uniform(0.8, 1.4, (order.n, 1))  # [N, history]

    def growth(delayed: Values) -> Values:
        return np.asarray(0.2 * delayed / (1 + delayed**10))

    for i in range(delay, x.shape[1] - 1):
        slope = growth(x[:, i - delay]) - 0.1 * x[:, i]
        ahead = growth(x[:, i + 1 - delay]) - 0.1 * (x[:, i] + h * slope)
        x[:, i + 1] = x[:, i] + h / 2 * (slope + ahead)
    path = x[:, delay + warm_up :: per_step, None]  # [N, T + 1, 1]
    return order.measured(path[:, :-1]), path[:, 1:], None


def _pendulum(order: Order) -> tuple[Values, Values, None]:
    """A damped pendulum (1 kg, 1 m, 1 N·m·s) under a wandering torque; of its state only the angle is measured."""
    n, dt, inner = order.n, order.dt, int(np.ceil(order.dt / 0.005))
    state, torque = np.zeros((n, 2)), np.zeros(n)  # angle (rad) and velocity (rad/s); N·m
    path, torques = np.empty((n, order.steps + 1, 2)), np.empty((n, order.steps + 1))
    decay = np.exp(-dt / 0.5)  # the torque forgets in half a second

    def rate(state: Values) -> Values:
        angle, velocity = state.T  # [N]
        return np.stack([velocity, torque - 9.81 * np.sin(angle) - velocity], axis=1)

    for t in range(order.steps + 1):
        torque = decay * torque + 3.0 * np.sqrt(1 - decay**2) * order.rng.standard_normal(n)  # standard deviation 3 N·m
        path[:, t], torques[:, t] = state, torque
        for _ in range(inner):
            state = _rk4(rate, state, dt / inner)
    angle = order.measured(path[:, :-1, :1])
    return np.concatenate([angle, torques[:, :-1, None]], axis=2), path[:, 1:], None


def _teleoperation(order: Order) -> tuple[Values, Values, None]:
    """Two joints led from target to target by a hand that is faster than the robot may be.

    The hand pulls like a critically damped spring (12 rad/s) with at most 25 rad/s² and 3 rad/s; targets within ±1 rad
    change every 0.5 to 1.5 s. Targets and measured positions in, the hand's next position out.
    """
    n, dt, omega = order.n, order.dt, 12.0
    position, velocity, target = (np.zeros((n, 2)) for _ in range(3))
    left = np.zeros(n)  # seconds before the next target
    path, targets = np.empty((n, order.steps + 1, 2)), np.empty((n, order.steps + 1, 2))
    for t in range(order.steps + 1):
        left -= dt
        new = left < 0
        target = np.where(new[:, None], order.rng.uniform(-1, 1, (n, 2)), target)
        left = np.where(new, order.rng.uniform(0.5, 1.5, n), left)
        path[:, t], targets[:, t] = position, target
        pull = np.clip(omega**2 * (target - position) - 2 * omega * velocity, -25.0, 25.0)  # rad/s²
        velocity = np.clip(velocity + dt * pull, -3.0, 3.0)  # rad/s
        position = position + dt * velocity
    return np.concatenate([targets[:, :-1], order.measured(path[:, :-1])], axis=2), path[:, 1:], None


def _narma10(order: Order) -> tuple[Values, Values, None]:
    """Atiya, Parlos 2000: y(t+1) = 0.3 y(t) + 0.05 y(t) Σ₀⁹ y(t-i) + 1.5 u(t-9) u(t) + 0.1, 0 ≤ u ≤ 0.5 at random."""
    n, start = order.n, 10
    u = order.rng.uniform(0, 0.5, (n, start + order.steps))  # [N, 10 + T]
    y = np.zeros((n, start + order.steps + 1))  # y[:, t + 1] follows u[:, t]
    for t in range(start, start + order.steps):
        grown = 0.3 * y[:, t] + 0.05 * y[:, t] * y[:, t - 9 : t + 1].sum(axis=1) + 1.5 * u[:, t - 9] * u[:, t] + 0.1
        y[:, t + 1] = np.minimum(grown, 1.0)  # rare inputs make it diverge: it saturates there
    return u[:, start:, None], y[:, start + 1 :, None], None


def _selective_recall(order: Order) -> tuple[Values, Values, Values]:
    """Rounds of: one value among random ones is flagged, and asked for `lag` to 2 · lag steps later."""
    n, steps, lag = order.n, order.steps, order.lag
    x, y, weight = np.zeros((n, steps, 3)), np.zeros((n, steps, 1)), np.zeros((n, steps))
    x[:, :, 0] = order.rng.uniform(-1, 1, (n, steps))
    for i in range(n):
        flagged = int(order.rng.integers(0, steps - lag))  # the first round always fits
        asked = int(order.rng.integers(flagged + lag, min(flagged + 2 * lag + 1, steps)))
        while asked < steps:
            x[i, flagged, 1] = x[i, asked, 2] = weight[i, asked] = 1
            y[i, asked, 0] = x[i, flagged, 0]
            flagged = asked + 1 + int(order.rng.integers(0, lag))
            asked = flagged + int(order.rng.integers(lag, 2 * lag + 1))
    return x, y, weight


def _delay_copy(order: Order) -> tuple[Values, Values, Values]:
    """The input of `lag` steps ago, uniform in [-1, 1]; no weight before there is one."""
    x = order.rng.uniform(-1, 1, (order.n, order.steps, 1))
    y, weight = np.zeros_like(x), np.ones(x.shape[:2])
    y[:, order.lag :] = x[:, : -order.lag]
    weight[:, : order.lag] = 0
    return x, y, weight


SYSTEMS = {
    "lorenz": System(("x", "y", "z"), ("x", "y", "z"), _lorenz, "noise"),
    "mackey_glass": System(("x",), ("x",), _mackey_glass, "noise"),
    "pendulum": System(
        ("pendulum/position", "pendulum/torque"), ("pendulum/position", "pendulum/velocity"), _pendulum, "noise", True
    ),
    "teleoperation": System(
        ("shoulder/target", "elbow/target", "shoulder/position", "elbow/position"),
        ("shoulder/position", "elbow/position"),
        _teleoperation,
        "noise",
        True,
    ),
    "narma10": System(("u",), ("y",), _narma10, None),
    "selective_recall": System(("value", "flag", "query"), ("value",), _selective_recall, "lag"),
    "delay_copy": System(("x",), ("x",), _delay_copy, "lag"),
}
