"""kz_coupled keeps rules that couple joints against adversaries, judged in integers."""

from __future__ import annotations

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

C = Path(__file__).parents[2] / "firmware_bridge" / "c"
PARTS = ("coupled", "rules", "guard", "project", "project_rules", "project_dual", "project_sqp", "project_soft")
SOURCES = [str(C / "prove" / "prove_coupled.c"), *(str(C / f"kz_{part}.c") for part in PARTS)]


@pytest.fixture(scope="session")
def prover(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build(tmp_path_factory.mktemp("prove") / "prove_coupled", "-O2", "-ffp-contract=off")


def _build(target: Path, *flags: str) -> Path:
    subprocess.run(["cc", "-std=gnu11", "-Wall", "-Wextra", *flags, *SOURCES, "-lm", "-o", str(target)], check=True)
    return target


def _run(prover: Path, *args: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run([str(prover), *args], capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def _holds(prover: Path, steps: int, seed: int) -> dict[str, Any]:
    rc, report = _run(prover, str(steps), str(seed))
    assert rc == 0, report
    assert report["violations"] == {"joint": 0, "position": 0, "velocity": 0, "switched": 0, "jerk": 0}
    assert min(report["switched"], report["narrowed"], report["slowed"]) > 0
    assert report["altered"] == report["braking_broke"] == 0
    assert report["admissible"] > 0
    assert report["near_a_row"] > 0
    assert report["took"]["projected"] > 0
    return report


@pytest.mark.parametrize("seed", [1, 2])
def test_a_million_adversarial_joint_steps(prover: Path, seed: int) -> None:
    assert _holds(prover, 1_000_000, seed)["misses"] > 1000


def test_no_undefined_behaviour(tmp_path: Path) -> None:
    prover = _build(tmp_path / "ub", "-O1", "-fsanitize=undefined,address", "-fno-sanitize-recover")
    _holds(prover, 200_000, 6)


def test_the_harness_catches_joints_guarded_alone(prover: Path) -> None:
    rc, report = _run(prover, "200000", "1", "naive")
    assert rc == 1
    assert report["violations"]["position"] > 0
    assert report["violations"]["joint"] == 0


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_hundred_million_adversarial_joint_steps(prover: Path) -> None:
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        reports = list(pool.map(lambda seed: _holds(prover, 5_000_000, seed), range(100, 120)))
    counts = ("joint_steps", "misses", "admissible", "switched", "narrowed", "slowed")
    totals = {key: sum(report[key] for report in reports) for key in counts}
    print(totals)  # noqa: T201
    assert totals["joint_steps"] >= 100_000_000
