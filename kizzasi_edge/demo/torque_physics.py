"""The demo arm driven by torques: the same MJCF with motors in place of servos and gravity left to the guard.

MuJoCo is imported when an arm is built (extra ``sim``). The physics runs in steps of 0.5 ms, finer than the guard's
period, and shares no code with the guard's model.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kizzasi_edge.demo.physics import ASSETS
from kizzasi_edge.demo.witness import LimitWitness, raw_limits
from kizzasi_edge.errors import ConfigError, MissingExtra

__all__ = ["ADVERSARIES", "ARMATURE", "HOME", "Proposer", "TorqueArm", "adversary"]

F64 = npt.NDArray[np.float64]
Proposer = Callable[[F64, F64], F64]
"""(q, v) → τ, all (n,): whoever proposes torques."""

ARMATURE = (0.4, 0.4, 0.4, 0.08, 0.08, 0.08)
"""Rotor inertia seen through the gear, kg·m², as arm.xml has it."""

HOME = (0.0, -1.5, 1.5, 0.0, 0.0, 0.0)
"""Where runs start, rad: the forearm level, the upper arm nearly upright."""

_TIMESTEP = 0.0005


class TorqueArm:
    """One arm with torque motors, no servos, no gravity compensation, no friction.

    Args:
        mjcf: model of hinges with an actuator each; only the joints' order is kept of the actuators.
        urdf: the same robot's raw limits.
        mass_scale: factor on every link's mass and inertia; the rotors' stay.

    Attributes: ``joints`` names; ``q``, ``v`` (n,) true positions [rad] and velocities [rad/s], views that the next
    step overwrites; ``witness`` compares every physics step since the last reset with the raw limits of ``urdf``;
    ``overloads`` (n,) counts the torques beyond its efforts.

    Raises MissingExtra without MuJoCo, ConfigError if the file cannot be used.
    """

    def __init__(
        self, mjcf: str | Path = ASSETS / "arm.xml", *, urdf: str | Path = ASSETS / "arm.urdf", mass_scale: float = 1.0
    ) -> None:
        try:
            import mujoco
        except ImportError as error:
            raise MissingExtra("the simulated arm needs MuJoCo: pip install 'kizzasi-edge[sim]'") from error
        try:
            self._model = mujoco.MjModel.from_xml_string(_with_motors(Path(mjcf), mass_scale))
        except (OSError, ET.ParseError, ValueError) as error:
            raise ConfigError(f"{mjcf}: cannot be used as an arm: {error}") from error
        self._mujoco, self._data = mujoco, mujoco.MjData(self._model)
        self.joints = tuple(str(self._model.actuator(i).name) for i in range(self._model.nu))
        self.q: F64 = self._data.qpos
        self.v: F64 = self._data.qvel
        self._raw, self._effort = raw_limits(urdf, self.joints), _raw_efforts(urdf, self.joints)
        self.reset(np.zeros(len(self.joints)))

    def reset(self, q: npt.ArrayLike) -> None:
        """At rest at q, (n,)."""
        self._mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:] = q
        self.witness = LimitWitness(self._raw, None)
        self.overloads = np.zeros(len(self.joints), np.int64)

    @property
    def margins(self) -> dict[str, float]:
        """The least distance, of any joint since the last reset, from its raw position [rad] and speed [rad/s] limits;
        negative: beyond."""
        (lower, upper, speed), (low, high, fast) = self._raw, self.witness.extremes
        return {
            "position": float(min((low - lower).min(), (upper - high).min())),
            "velocity": float((speed - fast).min()),
        }

    def step(self, torque: npt.ArrayLike, dt: float) -> None:
        """Advance by dt [s] with ``torque`` (n,) [N·m] held."""
        self._data.ctrl[:] = torque
        self.overloads += np.abs(self._data.ctrl) > self._effort
        for _ in range(round(dt / _TIMESTEP)):
            self._mujoco.mj_step(self._model, self._data)
            self.witness.see_motion(self.q, self.v)

    def dynamics(self, q: npt.ArrayLike, v: npt.ArrayLike) -> tuple[F64, F64]:
        """M(q) (n, n) and h(q, v) (n,) as MuJoCo computes them; the arm's own state stays."""
        data = self._mujoco.MjData(self._model)
        data.qpos[:], data.qvel[:] = q, v
        self._mujoco.mj_forward(self._model, data)
        mass = np.zeros((self._model.nv, self._model.nv))
        for row, unit in zip(mass, np.eye(self._model.nv), strict=True):
            self._mujoco.mj_mulM(self._model, data, row, unit)
        return mass, np.array(data.qfrc_bias)

    def potential(self, q: npt.ArrayLike) -> float:
        """Potential energy [J]."""
        data = self._mujoco.MjData(self._model)
        data.qpos[:] = q
        self._mujoco.mj_forward(self._model, data)
        self._mujoco.mj_energyPos(self._model, data)
        return float(data.energy[0])


def _raw_efforts(urdf: str | Path, joints: tuple[str, ...]) -> F64:
    """(n,) [N·m], as the URDF has them: raw_limits has found each joint's <limit>."""
    root = ET.parse(urdf).getroot()
    limits = [root.find(f"./joint[@name='{name}']/limit") for name in joints]
    try:
        return np.array([float(limit.attrib["effort"]) for limit in limits if limit is not None])
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{urdf}: <limit> needs a number for effort: {error}") from error


def _with_motors(mjcf: Path, mass_scale: float) -> str:
    root = ET.fromstring(mjcf.read_bytes())
    for option in root.iter("option"):
        option.set("timestep", str(_TIMESTEP))
    for body in root.iter("body"):
        body.attrib.pop("gravcomp", None)
    for inertial in root.iter("inertial"):
        for key in ("mass", "diaginertia"):
            inertial.set(key, " ".join(repr(mass_scale * float(x)) for x in inertial.get(key, "").split()))
    actuators = root.find("actuator")
    if actuators is None:
        raise ValueError("no <actuator>")
    names = [(a.get("name", ""), a.get("joint", "")) for a in actuators]
    actuators.clear()
    for name, joint in names:
        ET.SubElement(actuators, "motor", name=name, joint=joint)
    return ET.tostring(root, encoding="unicode")


def adversary(kind: str, effort: npt.ArrayLike, seed: int) -> Proposer:
    """One of :data:`ADVERSARIES` for joints with ``effort`` (n,) [N·m]; raises KeyError on another name."""
    return ADVERSARIES[kind](np.asarray(effort, np.float64), np.random.default_rng(seed))


def _random(effort: F64, rng: np.random.Generator) -> Proposer:
    return lambda _q, _v: rng.uniform(-1.5, 1.5, effort.size) * effort


def _stuck(effort: F64, rng: np.random.Generator) -> Proposer:
    """The largest torque in one direction for each joint, for ever."""
    torque = rng.choice([-1.0, 1.0], effort.size) * effort
    return lambda _q, _v: torque


def _pushing(effort: F64, rng: np.random.Generator) -> Proposer:
    """The largest torque the way each joint already moves: never lets it turn round of itself."""
    return lambda _q, v: np.where(v == 0.0, rng.choice([-1.0, 1.0], effort.size), np.sign(v)) * effort


def _bang_bang(effort: F64, rng: np.random.Generator) -> Proposer:
    """±effort, each joint switching at random about every 0.4 s at 500 Hz."""
    torque = rng.choice([-1.0, 1.0], effort.size) * effort

    def propose(_q: F64, _v: F64) -> F64:
        torque[rng.random(effort.size) < 1 / 200] *= -1.0
        return torque

    return propose


def _nan_bursts(effort: F64, rng: np.random.Generator) -> Proposer:
    """Bang-bang, with NaN in one joint for bursts of about 20 periods, a tenth of the time."""
    inner, burst = _bang_bang(effort, rng), [0]

    def propose(q: F64, v: F64) -> F64:
        torque = inner(q, v).copy()
        burst[0] = int(rng.integers(1, 40)) if burst[0] == 0 and rng.random() < 1 / 180 else max(burst[0] - 1, 0)
        if burst[0]:
            torque[rng.integers(effort.size)] = np.nan
        return torque

    return propose


ADVERSARIES: dict[str, Callable[[F64, np.random.Generator], Proposer]] = {
    "random": _random,
    "stuck": _stuck,
    "pushing": _pushing,
    "bang_bang": _bang_bang,
    "nan_bursts": _nan_bursts,
}
