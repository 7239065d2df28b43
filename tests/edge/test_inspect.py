"""`inspect` tells everything about a file and notices when it no longer computes what it should."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from kizzasi_edge.bundle import Bundle, write_bundle
from kizzasi_edge.errors import BundleError
from kizzasi_edge.inspect import inspect, replay_parity, run_inspect


def changed_vector(bundle: Bundle, core: bytes, factor: float) -> Bundle:
    """The same graph with a manifest whose expected y is off by `factor`."""
    raw = bundle.manifest.model_dump(mode="json")
    raw["parity"]["vector"]["y"] = (np.array(raw["parity"]["vector"]["y"]) * factor).tolist()
    return write_bundle(bundle.path, core, type(bundle.manifest).model_validate(raw))


def shown(bundle: Bundle, json_path: Path | None = None) -> tuple[bool, str]:
    screen = io.StringIO()
    passed = run_inspect(bundle.path, json_path, Console(file=screen, width=200))
    return passed, screen.getvalue()


def test_replay_passes_on_a_sound_file(arm: Bundle) -> None:
    replay = replay_parity(arm)
    assert replay.passed
    assert replay.steps == 8
    assert replay.relative_error <= 1e-6
    assert replay.bound == 1e-5


@pytest.mark.parametrize(("factor", "passed"), [(1 + 3e-6, True), (1 + 3e-5, False), (-1, False)])
def test_replay_uses_the_bound(arm: Bundle, arm_core: bytes, factor: float, passed: bool) -> None:
    assert replay_parity(changed_vector(arm, arm_core, factor)).passed is passed


def test_report_and_screen(arm: Bundle, tmp_path: Path) -> None:
    passed, screen = shown(arm, tmp_path / "out.json")
    report = json.loads((tmp_path / "out.json").read_text())
    assert passed
    assert report["replay"]["passed"] is True
    assert report["digest"] == arm.digest
    assert report["bytes"] == arm.path.stat().st_size
    assert report["state_values"] == 16
    assert report["manifest"]["sample_rate_hz"] == 500
    assert "vector" not in report["manifest"]["parity"]
    for text in (
        "pan/target_position [rad]",
        "h [1, 8]",
        "500",
        arm.digest,
        "portable",
        "replay of 8 steps on ort: ok",
    ):
        assert text in screen


def test_a_failed_replay_is_said_and_returned(arm: Bundle, arm_core: bytes) -> None:
    passed, screen = shown(changed_vector(arm, arm_core, 2.0))
    assert not passed
    assert "FAILED" in screen


def test_missing_file_is_a_bundle_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such model file"):
        inspect(tmp_path / "none.onnx")
