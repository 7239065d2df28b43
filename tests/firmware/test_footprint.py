"""Flash, RAM, stack and instructions of wire + guard + node: 6 channels, -Os."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

pytest.importorskip("unicorn")

from bare_host import CHANNELS
from images import BOARD, Build, armed, load, tool
from unimcu import Mcu

CORES = {
    "Cortex-M0+": ["-mcpu=cortex-m0plus", "-mthumb"],
    "Cortex-M3": ["-mcpu=cortex-m3", "-mthumb"],
    "Cortex-M4F": ["-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"],
}
Objects = tuple[str, list[Path], Path]
FLOAT_HELPERS = ("__aeabi_f", "__aeabi_d", "__aeabi_i2f", "__aeabi_ui2f", "__aeabi_l2f", "__aeabi_i2d", "__aeabi_ui2d")


@pytest.fixture(scope="module", params=CORES)
def objects(build: Build, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Objects:
    """wire, guard and node for a core, and a file that holds one kz_node."""
    out = tmp_path_factory.mktemp("objects")
    c = BOARD.parents[1] / "c"
    one = out / "one.c"
    one.write_text('#include "kz_node.h"\nkz_node node;\n')
    capacity = [f"-DKZ_NODE_CH={CHANNELS}", f"-DKZ_NODE_SENSORS={CHANNELS}"]
    sources = [c / "kz_wire.c", c / "kz_guard.c", c / "kz_node.c", one]
    for source in sources:
        target = out / f"{source.stem}.o"
        tool("gcc", *CORES[request.param], "-std=c99", "-Os", "-I", c, *capacity, "-c", source, "-o", target)
    *core, node = [out / f"{source.stem}.o" for source in sources]
    return request.param, core, node


def test_size(objects: Objects) -> None:
    name, core, node = objects
    rows = [line.split() for line in tool("size", *core, node).decode().splitlines()[1:]]
    flash = sum(int(text) + int(data) for text, data, *_ in rows)
    ram = sum(int(data) + int(bss) for _, data, bss, *_ in rows)
    print(f"{name}: wire + guard + node {flash} B flash, {ram} B RAM")  # noqa: T201
    assert flash <= 6 * 1024
    assert 512 < ram <= 1024


def test_no_floating_point_and_no_heap(objects: Objects) -> None:
    _, core, _ = objects
    wanted = {
        line.split()[-1] for line in tool("nm", "-u", *core).decode().splitlines() if line.strip().startswith("U ")
    }
    foreign = {name for name in wanted if not name.startswith("kz_")}
    assert {name for name in foreign if not name.startswith("__")} == {"memcpy", "memset"}
    assert not {name for name in foreign if name.startswith(FLOAT_HELPERS)}


@pytest.mark.parametrize("name", ["an385", "an386"])
def test_instructions_for_one_command(elves: dict[str, Path], name: str) -> None:
    """A 1 ms tick has 25 000 cycles at 25 MHz; a period's work must be a fraction of that."""
    noise = random.Random(1)
    mcu = Mcu(load(elves, name), noise=0xA5)
    host = armed(mcu)
    decode, guard, busy, quiet = [], [], [], []
    for _ in range(10):
        host.command([noise.randrange(-100_000, 100_000) for _ in range(CHANNELS)])
        mcu.link.give(host.out())
        counts = mcu.count(2000, "kz_node_rx", "kz_admit", "kz_node_tick")
        decode.append(sum(counts["kz_node_rx"]))
        guard += counts["kz_admit"]
        between, boundary = sorted(counts["kz_node_tick"])
        quiet.append(between)
        busy.append(boundary)
    assert len(guard) == 10 * CHANNELS
    print(  # noqa: T201
        f"{name}: decode {max(decode)}, kz_admit {min(guard)}…{max(guard)} a channel, tick with guard, apply and "
        f"STATE {min(busy)}…{max(busy)}, tick between {max(quiet)} instructions; stack {mcu.stack_used()} B"
    )
    assert max(decode) + max(busy) < 25_000
    assert mcu.stack_used() < 1024
