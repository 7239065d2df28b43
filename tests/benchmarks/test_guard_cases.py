"""What benchmarks/bench_guardrails.py races: every kind of guard runs, stays NOMINAL, and keeps no memory."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
TITLES = (
    "nothing active",
    "24 rows active",
    "two quadratics active",
    "a deadline rule",
    "a deadline running",
    "three temporal rules",
    "[faults] on joints",
    "velocities",
    "torques",
    "torques, projected",
    "poses",
)
ACTIVE = ("24 rows active", "two quadratics active", "poses", "torques, projected")


@pytest.fixture(scope="module")
def bench() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("guard_cases")


@pytest.fixture(scope="module")
def cases(bench: Any) -> dict[str, Any]:
    found: dict[str, Any] = bench.guard_cases()
    return found


@pytest.mark.parametrize("title", TITLES)
def test_steps_and_misses_leave_no_memory_behind(bench: Any, cases: dict[str, Any], title: str) -> None:
    if title not in cases:
        pytest.skip("needs pinocchio")
    found = bench.memory(cases[title])
    assert {call: bytes_of["kept"] for call, bytes_of in found.items()} == {"step_into": 0, "miss": 0}
    if title == "nothing active":
        assert found["step_into"]["transient"] == 0


@pytest.mark.parametrize("title", TITLES)
def test_guards_do_in_the_race_what_the_case_says(bench: Any, cases: dict[str, Any], title: str) -> None:
    if title not in cases:
        pytest.skip("needs pinocchio")
    _, changed = bench.contenders(cases[title])  # asserts NOMINAL
    assert changed == (1.0 if title in ACTIVE else 0.0)


def test_memory_that_is_kept_is_seen(bench: Any) -> None:
    kept: list[bytes] = []
    assert bench.traced(lambda: kept.append(bytes(100)))["kept"] >= 100 * bench.PERIOD
    assert bench.traced(lambda: bytes(1000))["transient"] > bench.traced(lambda: None)["transient"] + 1000
