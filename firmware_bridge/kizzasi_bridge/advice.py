"""What the codes of a board mean to the person in front of it, and what to do next."""

from __future__ import annotations

from .protocol import Fault, NodeState, ResetCause

__all__ = ["FAULTS", "RESETS", "STATES"]

_AGAIN = "then `send clear` and arm again"

FAULTS: dict[int, str] = {
    Fault.TTL: f"no fresh COMMAND in time. See that the host runs, keeps its rate and that the line holds; {_AGAIN}",
    Fault.ARM_TTL: f"armed, but no COMMAND came. See why the host does not stream; {_AGAIN}",
    Fault.INVALID_VALUE: f"the host sent a value that is none (NaN). Look at its model and sensors; {_AGAIN}",
    Fault.ACTUATOR: f"an actuator reports a fault. Look at drive, supply and temperature; {_AGAIN}",
    Fault.SENSOR: f"a position is not measured. Look at encoder and wiring; {_AGAIN}",
    Fault.HOST: f"the host reported a fault of its own. Its log says which; {_AGAIN}",
    Fault.ESTOP_HOST: f"emergency stop by the host. See that the machine is safe, {_AGAIN}",
    Fault.ESTOP_LOCAL: f"emergency stop at the machine. Make it safe, release the button, {_AGAIN}",
}
"""For each fault: what happened, and the next step."""

RESETS: dict[int, str] = {
    ResetCause.POWER_ON: "switched on",
    ResetCause.WATCHDOG: "the firmware hung and its watchdog bit: read its log, report it",
    ResetCause.SOFTWARE: "it restarted itself, or was flashed",
    ResetCause.BROWN_OUT: "its supply sank: look at power, load and cables",
}
"""For each reset cause: what happened."""

STATES: dict[int, str] = {
    NodeState.INIT: "outputs off until a host uploads limits and every position is measured",
    NodeState.READY: "holds; moves once a host arms it",
    NodeState.ARMED: "follows its host",
    NodeState.FAILSAFE: "stopped by itself, stays so until cleared",
    NodeState.ESTOP: "emergency stop, stays so until cleared",
}
"""For each state: what the board does in it."""
