"""kz_guard keeps its promise against adversaries, in integers, and is neither frozen nor meddlesome."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

C = Path(__file__).parents[2] / "firmware_bridge" / "c"
SOURCES = [str(C / "prove" / "prove_guard.c"), str(C / "kz_guard.c")]


@pytest.fixture(scope="session")
def prover(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build(tmp_path_factory.mktemp("prove") / "prove_guard", "-O2")


def _build(target: Path, *flags: str) -> Path:
    subprocess.run(["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", *flags, *SOURCES, "-o", str(target)], check=True)
    return target


def _run(prover: Path, *args: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run([str(prover), *args], capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def _holds(prover: Path, steps: int, seed: int) -> dict[str, Any]:
    rc, report = _run(prover, str(steps), str(seed))
    assert rc == 0, report
    assert report["steps"] == steps
    assert report["violations"] == {"range": 0, "step": 0, "change": 0}
    assert report["altered"] == report["not_nearest"] == report["silent"] == report["frozen"] == 0
    assert report["least_reach"] > 0.99
    assert min(report["attained"].values()) > 0
    assert report["admissible"] > 1000
    return report


@pytest.mark.parametrize("seed", [1, 2])
def test_two_million_adversarial_steps(prover: Path, seed: int) -> None:
    report = _holds(prover, 2_000_000, seed)
    assert report["misses"] > 10_000
    assert report["sticks"] > 10


def test_no_undefined_behaviour(tmp_path: Path) -> None:
    prover = _build(tmp_path / "ub", "-O1", "-fsanitize=undefined", "-fno-sanitize-recover")
    rc, report = _run(prover, "1000000", "5")
    assert rc == 0, report


def test_the_harness_catches_a_naive_clamp(prover: Path) -> None:
    rc, report = _run(prover, "200000", "1", "naive")
    assert rc == 1
    assert report["violations"]["change"] > 0


@pytest.mark.prove
def test_hundred_million_adversarial_steps(prover: Path) -> None:
    _holds(prover, 100_000_000, 7)
