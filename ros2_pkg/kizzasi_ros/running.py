"""A robot's run on a thread of its own: the loop is paced by monotonic time, whatever the executor does."""

from __future__ import annotations

import threading
import time

from kizzasi_edge.errors import ConnectorError, KizzasiError
from kizzasi_edge.operator import Operator
from kizzasi_edge.robot import Robot

LOOK_S = 0.01
END_S = 20.0
"""How long the end may take: a brake to rest, and connectors that wait for their devices."""


class Running:
    """Begins at once. ``error``: why it ended, ``None`` if it was asked to."""

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        self.error: Exception | None = None
        self._before = robot.operator  # of the run before
        self._thread = threading.Thread(target=self._run, name="kizzasi-loop", daemon=True)
        self._thread.start()

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()

    @property
    def operator(self) -> Operator | None:
        """``None`` while the robot opens its connectors."""
        operator = self.robot.operator
        return None if operator is self._before else operator

    def wait_until_up(self, timeout_s: float) -> Operator:
        """Until the loop has stepped. Raises what stopped it, or :class:`ConnectorError` when the time is over."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and not self.over:
            operator = self.operator
            if operator is not None and operator.loop.stats.ticks:
                return operator
            time.sleep(LOOK_S)
        if self.error is not None:
            raise self.error
        raise ConnectorError(f"found no step within {timeout_s:g} s; expected the connectors to open and begin")

    def end(self) -> None:
        """Brake to rest, and close everything. Raises :class:`ConnectorError` if it does not end."""
        if not self.over:
            self.robot.stop()
        self._thread.join(END_S)
        if not self.over:
            raise ConnectorError(f"found the loop running {END_S:g} s after its end was asked for")

    def _run(self) -> None:
        try:
            self.robot.run()
        except KizzasiError as exc:
            self.error = exc
        except Exception as exc:
            self.error = exc
            raise  # a fault of ours: its traceback belongs in the log
