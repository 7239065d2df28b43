"""The Arduino sketch: built by Arduino's own builder, with two servos and a host."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from avr import JOINTS, Avr, Event, Model
from bare_host import Host

from kizzasi_bridge import Frame
from kizzasi_bridge.protocol import AckResult, ChannelLimits, Limits, MsgType, NodeState, State

HERE = Path(__file__).parent / "arduino"
BOARD = HERE.parents[2] / "firmware_bridge" / "boards" / "arduino"
CORE = BOARD.parents[1] / "c"
SKETCH = BOARD / "examples" / "PanTilt"
TOOLS = ("avr-gcc", "arduino-builder", "make", "cc")
PACKAGES = "gcc-avr avr-libc arduino-builder arduino-core-avr libsimavr-dev"
TICK_US = 10_000
LIMITS = Limits((ChannelLimits(22_000, 43_500, 570, 57),) * JOINTS, 20_000, 2, 250, 500)
PERIOD_TICKS = LIMITS.period_us // TICK_US
CENTRE_RAW = 32_768
GAIN = 6004 / 65536  # half microseconds per raw, as in machine.cpp
THERE = (40_000, 25_000)


def missing() -> str | None:
    """What keeps these tests from running, in words."""
    if all(map(shutil.which, TOOLS)) and Path("/usr/include/simavr/sim_avr.h").exists():
        return None
    return f"the AVR tools are not installed (Debian: {PACKAGES})"


def library(out: Path) -> Path:
    """The folder that holds the library, assembled by the board's Makefile."""
    subprocess.run(["make", "-s", "-C", str(BOARD), f"OUT={out}"], check=True)
    return out


def compile_sketch(model: Model, libraries: Path, sketch: Path, out: Path) -> Path:
    """The ELF that Arduino's builder makes of a sketch.

    Debian's GCC 5 lacks a macro that the core wants and that the IDE's GCC 7 has.
    """
    out.mkdir(parents=True)
    command = ["arduino-builder", "-compile", "-hardware", "/usr/share/arduino-builder"]
    command += ["-hardware", "/usr/share/arduino/hardware", "-tools", "/usr/bin", "-libraries", str(libraries)]
    command += ["-fqbn", model.fqbn, "-build-path", str(out), "-warnings", "all", "-prefs=compiler.path=/usr/bin/"]
    command += ["-prefs=compiler.cpp.extra_flags=-DDECIMAL_DIG=__DECIMAL_DIG__", str(sketch / f"{sketch.name}.ino")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if "warning:" in line]
    # Only the core's own; and at link time GCC 5 no longer sees that kz_decode sets what it announces.
    ours = [line for line in warnings if "/hardware/arduino/" not in line and "maybe-uninitialized" not in line]
    assert not ours
    return out / f"{sketch.name}.ino.elf"


def counts_of(width_us: float) -> float:
    """Where a servo stands that gets such pulses, in ADC counts."""
    return (CENTRE_RAW + 2 * (width_us - 1500) / GAIN) / 64


class Servos:
    """Two servos that go where their pulses say, at most 2000 counts a second, as long as they have power."""

    def __init__(self, avr: Avr) -> None:
        self._avr = avr

    def move(self, us: int) -> None:
        """Let ``us`` pass for them."""
        step = 2000 * us / 1e6
        for joint, width in enumerate(self._avr.widths()):
            if width is not None and self._avr.power:
                at, target = self._avr.counts[joint], counts_of(width)
                self._avr.measure(joint, at + max(-step, min(step, target - at)))


def host_of(avr: Avr, limits: Limits = LIMITS) -> Host:
    """A host that lets one tick of the firmware pass with each exchange; servos follow their pulses."""
    servos = Servos(avr)

    def exchange(data: bytes) -> bytes:
        avr.give(data)
        avr.advance(TICK_US)
        servos.move(TICK_US)
        return avr.take()

    return Host(exchange, limits)


def state(host: Host) -> State:
    assert host.now is not None
    return host.now


def in_state(host: Host, wanted: NodeState) -> None:
    host.until(lambda: host.now and host.now.state == wanted)


def armed(avr: Avr) -> Host:
    """Boot, introduce, upload, ARM."""
    host = host_of(avr)
    host.upload()
    in_state(host, NodeState.READY)
    assert host.arm().result == AckResult.OK
    return host


def stream(host: Host, values: tuple[int, ...], periods: int) -> None:
    """A COMMAND and a period, so many times."""
    for _ in range(periods):
        host.command(values)
        host.live(PERIOD_TICKS)


def states(frames: list[Frame]) -> list[State]:
    return [State.unpack(frame.payload) for frame in frames if frame.type == MsgType.STATE]


def result(event: Event) -> int:
    """A u32 result."""
    return int.from_bytes(event.arguments[4:8], "little")


def named(event: Event, name: str) -> bool:
    """This function is entered."""
    return event.name == name and not event.returned


def output_state(event: Event) -> int:
    """kz_output.state: after t_us, session, two pointers and enabled."""
    return event.memory[14]
