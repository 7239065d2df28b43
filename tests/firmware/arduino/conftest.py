"""A board with the sketch; the tests skip where the tools are not installed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
from avr import MODELS, Avr, Simavr
from sketch import compile_sketch, library, missing

Boot = Callable[[str], Avr]


@pytest.fixture(scope="session")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if why := missing():
        pytest.skip(why)
    return tmp_path_factory.mktemp("arduino")


@pytest.fixture(scope="session")
def simavr(out: Path) -> Simavr:
    return Simavr(out)


@pytest.fixture(scope="session")
def libraries(out: Path) -> Path:
    return library(out / "libraries")


@pytest.fixture(scope="session")
def boot(simavr: Simavr, libraries: Path, out: Path) -> Boot:
    """``boot("uno")``: such a board with the sketch, which has just got power, its servos in the middle."""
    sketch = libraries / "Kizzasi" / "examples" / "PanTilt"
    elf = functools.cache(lambda name: compile_sketch(MODELS[name], libraries, sketch, out / name))
    return lambda name: Avr(simavr, elf(name), MODELS[name])


@pytest.fixture(params=["uno", pytest.param("mega", marks=pytest.mark.prove)])
def avr(boot: Boot, request: pytest.FixtureRequest) -> Avr:
    return boot(request.param)


@pytest.fixture
def uno(boot: Boot) -> Avr:
    return boot("uno")
