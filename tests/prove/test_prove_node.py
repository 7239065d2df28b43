"""The session of the node, by exhaustive search of the C state machine: firmware_bridge/c/prove/search_node.c."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from careless_nodes import CARELESS, careless

C = Path(__file__).parents[2] / "firmware_bridge" / "c"
# The search commits only hashes of whole sets, which torn limits do not have; whole lives (lives.py) find that one.
FOUND_BY_SEARCH = [name for name in CARELESS if name != "limits that are torn"]
# Every way from state to state that the page's table knows; what leads to INIT is a brown-out.
WAYS = {
    *("INIT-READY", "INIT-ESTOP"),
    *("READY-INIT", "READY-ARMED", "READY-FAILSAFE", "READY-ESTOP"),
    *("ARMED-INIT", "ARMED-READY", "ARMED-FAILSAFE", "ARMED-ESTOP"),
    *("FAILSAFE-INIT", "FAILSAFE-READY", "FAILSAFE-ESTOP"),
    *("ESTOP-INIT", "ESTOP-READY"),
}


def build(directory: Path, *, mutant: str = "", window: int = 3, ttl_ms: int = 7) -> Path:
    """search_node with copies of the node's files, in which motion is measured over ``window`` periods."""
    texts = careless(mutant)
    assert "#define MOTION_PERIODS 32 " in texts["kz_node.c"]
    for name, text in texts.items():
        (directory / name).write_text(text.replace("#define MOTION_PERIODS 32 ", f"#define MOTION_PERIODS {window} "))
    program = directory / "search_node"
    sources = [C / "prove" / "search_node.c", C / "kz_wire.c", C / "kz_guard.c", *(directory / name for name in texts)]
    sizes = ["-DKZ_NODE_CH=2", "-DKZ_NODE_SENSORS=2"]
    common = ["cc", "-std=c99", "-O2", "-Wall", "-Wextra", "-Wno-unused", *sizes, f"-I{C}", "-c"]
    objects = [directory / f"{source.stem}.o" for source in sources]
    for source, target in zip(sources, objects, strict=True):
        define = [f"-DMOTION_PERIODS={window}", f"-DTTL_MS={ttl_ms}"] if source.stem == "search_node" else []
        subprocess.run([*common, *define, str(source), "-o", str(target)], check=True)
    subprocess.run(["cc", *map(str, objects), "-o", str(program)], check=True)
    return program


def search(program: Path, layout: int, most: int = 1_000_000) -> tuple[int, dict[str, Any], str]:
    done = subprocess.run([str(program), str(layout), str(most)], capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout), done.stderr


def holds(program: Path, layout: int, most: int = 1_000_000) -> dict[str, Any]:
    rc, report, trail = search(program, layout, most)
    assert rc == 0, f"{report}\n{trail}"
    assert set(report["ways"]) == WAYS
    assert report["steps"] > 40 * report["states"]
    sys.stdout.write(f"\n{json.dumps(report)}\n")
    return report


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("search"))


@pytest.mark.parametrize("layout", [1, 4, 5], ids=["position", "torque", "safe place"])
def test_every_situation_of_one_channel(program: Path, layout: int) -> None:
    assert holds(program, layout)["states"] > 20_000


@pytest.mark.prove
def test_every_situation_of_a_velocity(program: Path) -> None:
    assert holds(program, 3)["states"] > 100_000


def test_too_few_slots_are_no_proof(program: Path) -> None:
    rc, report, _ = search(program, 0, 1000)
    assert rc == 2
    assert "more than 1000 states" in report["violated"]


def caught(directory: Path, name: str) -> None:
    program = build(directory, mutant=name)
    for layout in (1, 0, 3, 4, 5):
        rc, report, trail = search(program, layout)
        if rc == 1:
            assert trail, "no way there was told"
            return
        assert rc == 0, report
    raise AssertionError(f"{name}: not caught")


@pytest.mark.parametrize("name", ["CLEAR with any nonce", "COMMAND of the last half second"])
def test_a_careless_node_is_caught(tmp_path: Path, name: str) -> None:
    caught(tmp_path, name)


@pytest.mark.prove
@pytest.mark.parametrize("name", FOUND_BY_SEARCH)
def test_every_careless_node_is_caught(tmp_path: Path, name: str) -> None:
    caught(tmp_path, name)


@pytest.mark.prove
@pytest.mark.timeout(3000)
def test_every_situation_of_two_channels(tmp_path: Path) -> None:
    assert holds(build(tmp_path, ttl_ms=3), 2, 8_000_000)["states"] > 500_000


@pytest.mark.prove
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("layout", [0, 1, 5])
def test_every_situation_with_the_window_of_the_firmware(tmp_path: Path, layout: int) -> None:
    assert holds(build(tmp_path, window=32), layout)["states"] > 100_000
