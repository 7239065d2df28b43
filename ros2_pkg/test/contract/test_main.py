"""The executable: a signal brakes the robot to rest before ROS goes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from robot_in_ros import PATIENCE_S, assert_inside, write_robot

from kizzasi_edge.guardrails import Guardrails

pytestmark = pytest.mark.usefixtures("ros")


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_signal_brakes_to_rest(tmp_path_factory: pytest.TempPathFactory, number: str) -> None:
    config = write_robot(tmp_path_factory.mktemp("r"))
    script = Path(__file__).with_name("among_others.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(script.parent), *sys.path])}
    done = subprocess.run(
        [sys.executable, str(script), str(config), number],
        env=environment,
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    quanta = assert_inside(json.loads(done.stdout), Guardrails.load(config.parent / "g.guard.toml"))
    steps = np.abs(np.diff(quanta, axis=0)).max(axis=1)
    assert steps.max() > 1000
    assert steps[-1] == 0
