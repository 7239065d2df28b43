"""``kizzasi-edge check``: everything that can be said about a configuration without moving anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kizzasi_edge.config import load_config
from kizzasi_edge.errors import KizzasiError
from kizzasi_edge.guardrails import Guardrails
from kizzasi_edge.robot import Robot


def check(path: str | Path) -> dict[str, Any]:
    """Check a ``robot.toml`` (or a ``*.guard.toml`` alone).

    Returns ``{"config", "ok", "errors": […], "warnings": […], "guard": explain() text, "model": {…}}``. Never raises on
    a bad configuration: that is its result.
    """
    report: dict[str, Any] = {
        "config": str(path),
        "ok": False,
        "errors": [],
        "warnings": [],
        "guard": "",
        "model": {},
    }
    try:
        if str(path).endswith(".guard.toml"):
            report["guard"] = Guardrails.load(path).explain()
        else:
            _check_robot(Path(path), report)
    except KizzasiError as exc:
        report["errors"].append(str(exc))
    report["ok"] = not report["errors"]
    return report


def _check_robot(path: Path, report: dict[str, Any]) -> None:
    robot = Robot(load_config(path))
    manifest = robot.predictor.manifest
    report["guard"] = robot.guard.explain()
    report["model"] = {
        "path": str(robot.predictor.bundle.path),
        "kind": manifest.kind,
        "inputs": list(robot.predictor.input_names),
        "outputs": list(robot.predictor.output_names),
        "sample_rate_hz": manifest.sample_rate_hz,
    }
    for is_error, text in robot.findings():
        report["errors" if is_error else "warnings"].append(text)
