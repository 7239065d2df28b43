"""Watchdog, reset button, boot numbers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from avr import JOINTS, MODELS, Avr, Simavr
from sketch import (
    HERE,
    THERE,
    TICK_US,
    armed,
    compile_sketch,
    host_of,
    state,
    stream,
)

from kizzasi_bridge.protocol import NodeState, ResetCause

U32 = 0xFFFFFFFF


@pytest.mark.prove
def test_a_hang_cuts_then_resets_and_is_told(simavr: Simavr, libraries: Path, out: Path) -> None:
    sketch = out / "hanging" / "PanTilt"
    shutil.copytree(libraries / "Kizzasi" / "examples" / "PanTilt", sketch)
    (sketch / "machine.cpp").rename(sketch / "healthy.h")
    shutil.copy(HERE / "hanging_servos.cpp", sketch / "machine.cpp")
    for name, model in MODELS.items():
        avr = Avr(simavr, compile_sketch(model, libraries, sketch, out / f"hanging-{name}"), model)
        if name == "mega":
            avr.hide_mcusr()
        host = armed(avr)
        first = host.introduce()
        assert first.reset_cause == ResetCause.POWER_ON
        for _ in range(100):
            host.command(THERE)
            host.live()
            if not avr.power:
                break
        assert (avr.power, avr.widths(), avr.resets) == (False, [None] * JOINTS, 0), "the first timeout cuts"
        assert state(host).state == NodeState.ARMED
        host.hellos = 0
        host.live(100_000 // TICK_US)
        assert avr.resets == 1, "the second resets"
        assert host.hellos == 1
        hello = host.hello
        assert hello is not None
        assert (hello.reset_cause, hello.state, hello.limits_hash) == (ResetCause.WATCHDOG, NodeState.INIT, 0)
        assert hello.boot_id == (first.boot_id + 1) & U32
        assert not avr.power
        avr.reset()
        host.hellos = 0
        host.until(lambda host=host: host.hellos)
        assert host.hello is not None
        assert host.hello.reset_cause == ResetCause.SOFTWARE, "the watchdog is blamed once"


def test_the_watchdog_runs_before_anything_can_hang(uno: Avr) -> None:
    """setup never comes to its end."""
    branch_to_itself = b"\xff\xcf"
    uno.flash[uno.symbols["kz_crc32"] : uno.symbols["kz_crc32"] + 2] = branch_to_itself
    uno.advance(60_000)
    assert uno.resets == 0
    uno.advance(90_000)
    assert uno.resets >= 1


@pytest.mark.parametrize("hidden", [False, True])
def test_the_reset_button(uno: Avr, hidden: bool) -> None:
    """Outputs off at once, and neither a power-on nor the watchdog is blamed."""
    if hidden:
        uno.hide_mcusr()
    host = armed(uno)
    first = host.introduce()
    stream(host, THERE, 3)
    uno.reset()
    assert not uno.power
    host.hellos = 0
    host.until(lambda: host.hellos)
    hello = host.hello
    assert hello is not None
    assert (hello.reset_cause, hello.state, hello.limits_hash) == (ResetCause.SOFTWARE, NodeState.INIT, 0)
    assert hello.boot_id == (first.boot_id + 1) & U32
    host.live(10)
    assert (uno.power, uno.widths(), uno.resets) == (False, [None] * JOINTS, 1)


def test_boot_numbers_never_repeat_even_where_power_fails_while_they_are_written(uno: Avr) -> None:
    uno.eeprom = b"\xff\xff\x07\x00"
    written = []
    while not written or written[-1] != 0x080000:
        uno.advance(1)
        written.append(int.from_bytes(uno.eeprom, "little"))
    assert list(dict.fromkeys(written)) == [0x07FFFF, 0x08FFFF, 0x0800FF, 0x080000]
    assert host_of(uno).introduce().boot_id == 0x080000
