"""The simulated arm: MuJoCo physics behind one class, because the plant process and the trainer's final check
must be the same robot.

MuJoCo is imported when an arm is built, never at import time (extra ``sim``).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from kizzasi_edge.errors import ConfigError, MissingExtra

__all__ = ["ASSETS", "ENCODER_STEP", "QUANTUM", "ArmPhysics"]

ASSETS = Path(__file__).parent / "assets"
QUANTUM = 2.0**-21  # rad; the channel quantum of the demo's boards
ENCODER_STEP = 2.0 * np.pi / 2**17  # rad; one count of the joint encoders
_TIMESTEP_US = 1000  # largest physics step

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]


class ArmPhysics:
    """One arm with servos, brakes and noisy encoders.

    Args:
        mjcf: model with one position actuator a joint and the numeric ``brake_torque`` (N·m, one a joint).
        noise: standard deviation of the encoders' Gaussian noise [rad].
        seed: seed of that noise.

    Attributes:
        joints: joint names in channel order.
        q, qvel: true joint positions [rad] and velocities [rad/s], (n,) float64 views that the next step
            overwrites.

    Raises:
        MissingExtra: MuJoCo is not installed.
        ConfigError: the file is missing or is not such a model.
    """

    def __init__(self, mjcf: str | Path, *, noise: float, seed: int) -> None:
        try:
            import mujoco
        except ImportError as error:
            raise MissingExtra("the simulated arm needs MuJoCo: pip install 'kizzasi-edge[sim]'") from error
        try:
            self._model = mujoco.MjModel.from_xml_path(str(mjcf))
        except ValueError as error:
            raise ConfigError(f"{mjcf}: MuJoCo cannot load it: {error}") from error
        model = self._model
        n = int(model.nu)
        names = tuple(str(model.actuator(i).name) for i in range(n))
        joints = tuple(str(model.joint(i).name) for i in range(model.njnt))
        if n == 0 or names != joints or model.nq != n:
            raise ConfigError(
                f"{mjcf}: found joints {joints} and actuators {names}, expected one hinge joint an actuator"
            )
        self._mujoco = mujoco
        self._data = mujoco.MjData(model)
        self._brake = np.array(model.numeric("brake_torque").data, dtype=np.float64)
        if self._brake.shape != (n,):
            raise ConfigError(f"{mjcf}: custom numeric brake_torque: found {self._brake.size} values, expected {n}")
        self._rng = np.random.default_rng(seed)
        self._noise = np.zeros((0, n))
        self._noise_row = 0
        self._sigma = noise
        self._released: bool | None = None
        self.joints = names
        self.q: F64 = self._data.qpos
        self.qvel: F64 = self._data.qvel
        self._set_released(False)

    def reset(self, q: npt.ArrayLike) -> None:
        """Put the arm at rest at q [rad], (n,), servos holding there."""
        self._mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:] = q
        self._data.ctrl[:] = q
        self._mujoco.mj_forward(self._model, self._data)

    def step(self, command: F64, dt_us: int, enabled: bool) -> None:
        """Advance by dt_us with the servos' setpoint held at command [rad], (n,) float64.

        Not enabled: servos off and the power-off brakes closed, whose friction stops a moving joint.
        """
        if enabled != self._released:
            self._set_released(enabled)
        steps = -(-dt_us // _TIMESTEP_US)
        if steps == 0:
            return
        self._model.opt.timestep = dt_us * 1e-6 / steps
        self._data.ctrl[:] = command
        self._mujoco.mj_step(self._model, self._data, steps)

    def measure(self, quantum: float = QUANTUM) -> I32:
        """Positions as the encoders report them, noisy and rounded to their counts: quanta, (n,) int32."""
        if self._noise_row == len(self._noise):  # drawn in blocks: one call a thousand ticks
            self._noise = self._rng.normal(0.0, self._sigma, (1000, len(self.joints)))
            self._noise_row = 0
        counts = np.rint((self.q + self._noise[self._noise_row]) / ENCODER_STEP)
        self._noise_row += 1
        measured: I32 = np.rint(counts * (ENCODER_STEP / quantum)).astype(np.int32)
        return measured

    def _set_released(self, released: bool) -> None:
        flag = int(self._mujoco.mjtDisableBit.mjDSBL_ACTUATION)
        if released:
            self._model.opt.disableflags &= ~flag
            self._model.dof_frictionloss[:] = 0.0
        else:
            self._model.opt.disableflags |= flag
            self._model.dof_frictionloss[:] = self._brake
        self._released = released
