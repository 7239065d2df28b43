"""What a connector is: a source of observations, an actuator, or both (a serial device).

A connector is a class with an ``Options`` section (its keys in robot.toml) and the methods below. Nothing here or in
the table imports a connector's library: a connector's file is imported when a config names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from kizzasi_edge.frames import Command, Observation

if TYPE_CHECKING:
    from kizzasi_edge.guardrails import Guardrails


class Source(Protocol):
    """Reads. ``open`` raises :class:`ConnectorError`; ``names`` is known after it."""

    names: tuple[str, ...]

    def open(self) -> None: ...

    def close(self) -> None: ...

    def read(self) -> Observation | None:
        """The newest observation; never blocks; ``None`` before the first."""

    @property
    def counters(self) -> Mapping[str, int]: ...

    def findings(self, rate_hz: float, joints: int) -> list[tuple[bool, str]]:
        """What ``check`` should say before anything is opened: (is an error, text)."""


class Actuator(Protocol):
    """Writes commands and says what was applied. ``prepare`` checks the guard against the open device and makes the
    device enforce the same limits. ``motion`` is the applied positions and last steps in quanta, in the guard's
    order, or ``None`` if the device has not said. States are those of CONTRACT §4."""

    commands: tuple[str, ...]
    """Of "position", "velocity", "torque" and "pose", what it can be sent."""

    def open(self) -> None: ...

    def close(self) -> None: ...

    def prepare(self, guard: Guardrails, rate_hz: float) -> None: ...

    def wait(self, timeout_s: float) -> int:
        """Block until the device begins a new period; how many began since the last call (0 = timed out)."""

    def place(self, position: npt.NDArray[np.float32]) -> None:
        """Where the joints are measured ``(n,)`` [rad], finite, each period; for those that do not measure."""

    def motion(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]] | None: ...

    @property
    def session(self) -> int:
        """The armed session; 0 when not armed."""

    @property
    def state(self) -> str:
        """INIT, READY, ARMED, FAILSAFE, ESTOP, or DISCONNECTED."""

    def write(self, command: Command) -> None:
        """Send one guarded command; never blocks."""

    def idle(self) -> None:
        """The period's sign of life when there is no command to send."""

    def arm(self) -> None: ...

    def disarm(self) -> None: ...

    def estop(self) -> None: ...

    def clear(self) -> None: ...

    @property
    def status(self) -> Mapping[str, object]:
        """For operators: state, fault, link counters."""
