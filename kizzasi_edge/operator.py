"""What is asked of a running robot from outside its loop: arm, stop, clear, start the model anew, how it is doing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kizzasi_edge.connectors.base import Actuator
from kizzasi_edge.control import Handler
from kizzasi_edge.errors import ConnectorError
from kizzasi_edge.guardrails import Guardrails, Verdict
from kizzasi_edge.guardrails.faults import State
from kizzasi_edge.loop import Loop
from kizzasi_edge.watchdog import Watchdog

CLEAR_S = 1.0
"""How long a `clear` waits for the guard to be at rest and well again."""
READ_AGAIN_S = 50e-6
TRIES = 20
"""How often the verdict is looked at again while the loop is writing it, and how many times at most."""


class Operator:
    """Any thread may call it while the loop runs. Each request raises :class:`ConnectorError` (a device's refusal:
    :class:`LinkError`) with the reason where it is not done.

    ``actuator``: what can be armed; where there is none, ``passive`` says why. ``refused``: what the system did not
    grant the loop.
    """

    def __init__(
        self,
        robot: str,
        guard: Guardrails,
        loop: Loop,
        watchdog: Watchdog | None,
        *,
        stop: Callable[[], None],
        passive: str = "",
        refused: Sequence[str] = (),
    ) -> None:
        self.robot, self.guard, self.loop, self.watchdog = robot, guard, loop, watchdog
        self.actuator = loop.actuator
        self._stop, self._passive, self._refused = stop, passive, list(refused)

    def arm(self) -> None:
        self._driven("arm").arm()

    def disarm(self) -> None:
        self._driven("disarm").disarm()

    def estop(self) -> None:
        self._driven("estop").estop()
        self.guard.estop()  # ours latches too: after CLEAR it waits for a proposal that asks for no motion

    def clear(self) -> None:
        """Release guard and device, whichever is latched; what stays latched is the error's reason."""
        actuator = self._driven("clear")
        if self.guard.state >= State.STOPPED:
            if actuator.state == "ARMED":
                actuator.disarm()  # CLEAR leads to READY, never back into a session
            deadline = time.monotonic() + CLEAR_S
            while self.guard.state >= State.STOPPED:
                if time.monotonic() > deadline:
                    raise ConnectorError(
                        f"the guard stays {self.guard.state.name} ({', '.join(self._causes()) or 'no cause'}): "
                        "expected the robot at rest, and what latched it gone"
                    )
                self.guard.clear()
                time.sleep(0.01)
            if actuator.state not in ("FAILSAFE", "ESTOP"):
                return
        actuator.clear()

    def reset_state(self) -> None:
        """Let the model start from its initial state with the next tick. The guard forgets nothing."""
        self.loop.reset_asked = True

    def stop(self) -> None:
        """Disarm and end the run."""
        self._stop()

    def handlers(self) -> dict[str, Handler]:
        """By the names of the control socket's operations; each answers with the status, `stop` with nothing."""

        def act(name: str) -> Handler:
            def handler() -> Mapping[str, Any]:
                getattr(self, name)()
                return self.status()

            return handler

        def stop() -> Mapping[str, Any]:
            self.stop()
            return {}

        names = ("arm", "disarm", "estop", "clear", "reset_state")
        return {"status": self.status, "stop": stop, **{name: act(name) for name in names}}

    def status(self) -> Mapping[str, Any]:
        """State of the node, counters of loop, connectors and guard."""
        loop = self.loop
        stats = loop.stats
        return {
            "robot": self.robot,
            "state": "DRY_RUN" if self.actuator is None else self.actuator.state,
            "ticks": stats.ticks,
            "armed_ticks": stats.armed_ticks,
            "sessions": stats.sessions,
            "resets": stats.resets,
            "overruns": loop.pace.overruns,
            "silent": stats.silent,
            "overtaken": stats.overtaken,
            "stale": {"ticks": stats.stale_ticks, **loop.align.stale},
            "bad_inputs": stats.bad_inputs,
            "bad_outputs": stats.bad_outputs,
            "hangs": 0 if self.watchdog is None else self.watchdog.hangs,
            "guard_exceptions": stats.guard_exceptions,
            "last_error": stats.last_error,
            "interventions": dict(stats.interventions),
            "relaxed": dict(stats.relaxed),
            "guard": self._guard_status(),
            "refused": list(self._refused),
            "device": {} if self.actuator is None else dict(self.actuator.status),
        }

    def verdict(self) -> Verdict | None:
        """A copy of the guard's last decision; None before the first, and where the loop never pauses to be read."""
        loop = self.loop
        for _ in range(TRIES):
            tick, verdict = loop.stats.ticks, loop.verdict
            if verdict is None:
                return None
            copy = Verdict(
                verdict.layout, bytes(verdict.record), verdict.stamp_ns, verdict.times, verdict.violated_bits
            )
            if loop.in_flight == 0 and loop.stats.ticks == tick:  # nobody wrote it meanwhile
                return copy
            time.sleep(READ_AGAIN_S)
        return None

    def _guard_status(self) -> Mapping[str, Any]:
        """Where the guard's fault machine stands, what it has seen, and its temporal rules."""
        guard, verdict = self.guard, self.verdict()
        return {
            "state": self.loop.stats.state.name,
            "cause": self._causes(),
            "events": {str(event.name): n for event, n in dict(guard.faults.events).items()},
            "transitions": {f"{a.name} → {b.name}": n for (a, b), n in dict(guard.faults.transitions).items()},
            "violated": [] if verdict is None else list(verdict.violated),
            "remaining": {} if verdict is None else verdict.remaining,
        }

    def _causes(self) -> list[str]:
        return [str(event.name) for event in self.guard.faults.memory.cause]

    def _driven(self, op: str) -> Actuator:
        if self.actuator is None:
            raise ConnectorError(f"{op}: this run drives no actuator ({self._passive})")
        return self.actuator
