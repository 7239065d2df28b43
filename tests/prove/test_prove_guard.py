"""kz_guard keeps its promise against adversaries, in integers, and is neither frozen nor meddlesome."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

C = Path(__file__).parents[2] / "firmware_bridge" / "c"
SOURCES = [str(C / "prove" / "prove_guard.c"), str(C / "kz_guard.c")]


@pytest.fixture(scope="session")
def prover(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build(tmp_path_factory.mktemp("prove") / "prove_guard", "-O3")


def _build(target: Path, *flags: str) -> Path:
    command = ["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", *flags, *SOURCES, "-o", str(target), "-lm"]
    subprocess.run(command, check=True)
    return target


def _run(prover: Path, *args: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run([str(prover), *args], capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def _holds(prover: Path, steps: int, seeds: Sequence[int]) -> dict[str, Any]:
    """Run every seed, as many at a time as there are cores, and add up what they report."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        runs = list(pool.map(lambda seed: _run(prover, str(steps), str(seed)), seeds))
    for rc, report in runs:
        assert rc == 0, report
        assert report["guard"] == "kz_guard"
    total = _sum([report for _, report in runs])
    assert total["steps"] == steps * len(seeds)
    assert total["violations"] == {"range": 0, "step": 0, "change": 0}
    assert total["altered"] == total["not_nearest"] == total["silent"] == total["frozen"] == 0
    assert min(report["least_reach"] for _, report in runs) > 0.99
    assert min(total["attained"].values()) > 0
    assert total["differs"] == total["joint"]["range"] == total["joint"]["step"] == total["joint"]["change"] == 0
    assert total["joint"]["at_range"] > 1000
    assert total["admissible"] > 1000
    assert total["misses"] - total["misses_beyond_budget"] > 1000
    assert total["misses_beyond_budget"] > 1000
    return total


def _sum(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        key: _sum([report[key] for report in reports])
        if isinstance(value, dict)
        else sum(report[key] for report in reports)
        for key, value in reports[0].items()
        if key not in ("guard", "seed", "least_reach")
    }


def test_adversarial_steps(prover: Path) -> None:
    report = _holds(prover, 2_000_000, [1, 2])
    assert report["misses"] > 20_000
    assert report["sticks"] > 20


def test_no_undefined_behaviour(tmp_path: Path) -> None:
    prover = _build(tmp_path / "ub", "-O1", "-fsanitize=undefined", "-fno-sanitize-recover")
    rc, report = _run(prover, "1000000", "5")
    assert rc == 0, report


@pytest.mark.parametrize(
    ("limiter", "breaks", "keeps"),
    [
        ("naive", "change", "range"),
        ("parabola", "range", "change"),
        ("ros2_range", "change", "range"),
        ("ros2_saturation", "range", "change"),
    ],
)
def test_the_harness_catches_limiters_in_common_use(prover: Path, limiter: str, breaks: str, keeps: str) -> None:
    """Each gives up one limit at the end of the range; that it keeps the others shows that it is not a straw man."""
    rc, report = _run(prover, "1000000", "1", limiter)
    assert rc == 1
    assert report["guard"] == limiter
    assert report["violations"][breaks] > 1000
    assert report["violations"][keeps] == report["violations"]["step"] == 0
    assert min(report["attained"].values()) > 0
    assert report["joint"][breaks] > 1000  # measured anew each period, it is no better


def test_an_unknown_guard_is_refused(prover: Path) -> None:
    done = subprocess.run([str(prover), "1000", "1", "perfect"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "ros2_saturation" in done.stderr


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_a_thousand_million_adversarial_steps(prover: Path) -> None:
    report = _holds(prover, 125_000_000, range(11, 19))
    sys.stdout.write(f"\n{json.dumps(report)}\n")
    assert report["steps"] == 10**9
