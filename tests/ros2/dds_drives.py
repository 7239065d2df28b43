"""Two joints on velocity drives as a robot on a DDS graph: dds_plant.py's, with another robot in it. A drive follows
what it is told with a lag, and goes on with the last velocity when nobody tells it anything, as
JointGroupVelocityController does.

    python dds_drives.py DOMAIN_ID LOG P1,P2
"""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from cyclonedds.domain import Domain, DomainParticipant
from dds_peer import LOOPBACK, Header, JointState, Time
from dds_plant import live

JOINTS = ["lift", "pan"]
"""In the controller's order."""
LAG_S = 0.005


class Drives:
    """Joints in time [ns since the epoch], and their log."""

    def __init__(self, start: list[float], log: Path) -> None:
        self.q, self.v, self.command = list(start), [0.0] * len(start), [0.0] * len(start)
        self._now_ns = time.time_ns()
        self._log = log.open("a")

    def go_on(self, to_ns: int) -> None:
        dt = max(to_ns - self._now_ns, 0) * 1e-9
        self._now_ns = max(to_ns, self._now_ns)
        left = math.exp(-dt / LAG_S)
        for i, told in enumerate(self.command):
            off = self.v[i] - told
            self.q[i] += told * dt + off * LAG_S * (1 - left)
            self.v[i] = told + off * left

    def told(self, values: list[float], at_ns: int) -> None:
        self.go_on(at_ns)
        self._note(t_ns=at_ns, command=values)
        self.command = values

    def state(self, at_ns: int, published: bool) -> JointState:
        self.go_on(at_ns)
        self._note(t_ns=time.time_ns(), published=published, q=self.q, v=self.v)
        return JointState(Header(Time(*divmod(at_ns, 10**9)), "base_link"), JOINTS, list(self.q), list(self.v), [])

    def _note(self, **row: Any) -> None:
        self._log.write(json.dumps(row) + "\n")
        self._log.flush()


def main() -> None:
    domain_id, log, start = sys.argv[1:]
    domain = Domain(int(domain_id), LOOPBACK.format(more=""))
    robot = Drives([float(value) for value in start.split(",")], Path(log))
    live(robot, DomainParticipant(int(domain_id)), "velocity_controller")
    del domain


if __name__ == "__main__":
    main()
