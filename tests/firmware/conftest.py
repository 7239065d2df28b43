"""The firmware, cross-compiled once for all tests; they skip where the compiler is not installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from qemu import TICK_US, WATCHDOG_MS

from kizzasi_bridge.board_file import load_board

BOARD = Path(__file__).parents[2] / "firmware_bridge" / "boards" / "mps2"
Build = Callable[..., dict[str, Path]]


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """``build(MACHINE=...)``: the ELF of each image, by make."""
    if not shutil.which("arm-none-eabi-gcc"):
        pytest.skip("arm-none-eabi-gcc is not installed (Debian: gcc-arm-none-eabi libnewlib-arm-none-eabi)")

    def make(**variables: object) -> dict[str, Path]:
        out = tmp_path_factory.mktemp("mps2")
        settings = {"OUT": out, "PYTHON": sys.executable, **variables}
        command = ["make", "-s", "-C", str(BOARD), *(f"{key}={value}" for key, value in settings.items())]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return {name: out / f"{name}.elf" for name in ("an385", "an386")}

    return make


@pytest.fixture(scope="session")
def elves(build: Build) -> dict[str, Path]:
    return build()


@pytest.fixture(scope="session")
def hanging_elves(build: Build) -> dict[str, Path]:
    return build(MACHINE=Path(__file__).parent / "hanging_machine.c")


@pytest.fixture(scope="session")
def slow_board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The board's file with another tick."""
    file = tmp_path_factory.mktemp("slow") / "board.toml"
    file.write_text((BOARD / "board.toml").read_text().replace("tick_us = 1000", f"tick_us = {TICK_US}"))
    assert load_board(file).schema.tick_us == TICK_US
    return file


@pytest.fixture(scope="session")
def patient(build: Build, slow_board: Path) -> dict[str, Path]:
    return build(WATCHDOG_MS=WATCHDOG_MS, BOARD=slow_board)
