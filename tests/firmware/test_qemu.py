"""Tier 4: the same ELF in QEMU's model of the board, in real time, with the host behind a socket that can be cut."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bare_host import Host, Tick
from images import Build
from qemu import ALWAYS_ON, TTL_US, WATCHDOG_MS, WIDE, H, Qemu

from kizzasi_bridge.protocol import AckResult, Fault, NodeState, ResetCause

pytestmark = [
    pytest.mark.prove,
    pytest.mark.skipif(not shutil.which("qemu-system-arm"), reason="qemu-system-arm is not installed"),
]
HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def patient_and_hanging(build: Build, slow_board: Path) -> dict[str, Path]:
    return build(WATCHDOG_MS=WATCHDOG_MS, BOARD=slow_board, MACHINE=HERE / "hanging_machine.c")


@pytest.fixture(params=["an385", "an386"])
def board(patient: dict[str, Path], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Qemu]:
    with Qemu(patient[request.param], request.param, tmp_path) as running:
        yield running


def armed(board: Qemu, host: Host) -> None:
    host.upload()
    host.until(lambda: host.now and host.now.state == NodeState.READY)
    assert host.arm().result == AckResult.OK


def stream(host: Host, values: tuple[int, ...], seconds: float) -> None:
    """A COMMAND for every STATE."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        host.now = None
        host.until(lambda: host.now)
        host.command(values)


def stopped_in_time(ticks: list[Tick], obs_us: int) -> int:
    """The outputs after the last observation that the host used: FAILSAFE on the first tick at or after the deadline,
    stopped as the limits say, and held. Returns how long after the observation, in µs."""
    end = next(i for i, tick in enumerate(ticks) if tick.state == NodeState.FAILSAFE)
    armed = ticks[end - 1]
    assert armed.state == NodeState.ARMED
    assert armed.t_us - obs_us < TTL_US, "a tick that was driven past the deadline"
    periods = [tick for tick in ticks if tick.boundary]
    braking = 0
    for a, b, c in zip(periods, periods[1:], periods[2:], strict=False):
        if c.t_us - a.t_us < 2.5 * WIDE.period_us:  # else the trace has lost one
            assert max(abs(z - 2 * y + x) for x, y, z in zip(a.applied, b.applied, c.applied, strict=True)) <= H
            braking += c.applied[0] - b.applied[0] < b.applied[0] - a.applied[0]
    assert braking, "from motion: after the miss budget, long before the TTL"
    assert periods[-1].applied == periods[-2].applied == periods[-3].applied, "it holds"
    assert all(tick.state == NodeState.FAILSAFE for tick in ticks[end:])
    return ticks[end].t_us - obs_us


def test_cable_cut(board: Qemu) -> None:
    host, link = board.plug()
    armed(board, host)
    stream(host, ALWAYS_ON, 1.0)
    assert host.now is not None
    assert (host.now.state, host.now.stale) == (NodeState.ARMED, 0)
    obs = host.now.sample_t_us
    link.sendall(host.out())
    link.close()
    board.watch(3.0)
    took = stopped_in_time(board.trace.ticks, obs)
    print(f"cable cut: FAILSAFE {took / 1000:.1f} ms after the last observation, TTL {TTL_US / 1000:.0f} ms")  # noqa: T201

    host, link = board.plug()  # plugged in again: nothing moves until somebody clears and arms
    host.introduce()
    host.until(lambda: host.now)
    assert (host.now.state, host.now.fault) == (NodeState.FAILSAFE, Fault.TTL)
    assert host.clear().result == AckResult.OK
    host.until(lambda: host.now.state == NodeState.READY)
    assert host.arm().result == AckResult.OK
    link.close()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP, signal.SIGUSR1], ids=["kill -9", "stopped", "slow"])
def test_a_host_that_is_no_more(board: Qemu, how: signal.Signals) -> None:
    command = [sys.executable, str(HERE / "streaming_host.py"), str(board.link)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as host:
        assert host.stdout is not None
        deadline = time.monotonic() + 30
        while not any(tick.state == NodeState.ARMED and tick.applied[0] > 5000 for tick in board.trace.ticks[-50:]):
            assert time.monotonic() < deadline, "the host never got it moving"
            board.watch(0.05)
        host.send_signal(how)
        board.watch(3.0)
        stamps = os.read(host.stdout.fileno(), 1 << 16).split(b"\n")
        host.send_signal(signal.SIGCONT)  # a stopped one resumes and goes on commanding: in vain
        board.watch(1.0)
        host.kill()
    took = stopped_in_time(board.trace.ticks, int(stamps[-2]))
    print(f"{how.name}: FAILSAFE {took / 1000:.1f} ms after the last observation, TTL {TTL_US / 1000:.0f} ms")  # noqa: T201


def test_a_hang_ends_in_a_watchdog_reset(patient_and_hanging: dict[str, Path], tmp_path: Path) -> None:
    with Qemu(patient_and_hanging["an385"], "an385", tmp_path) as board:
        host, link = board.plug()
        armed(board, host)
        first = host.hello
        host.hellos = 0
        deadline = time.monotonic() + 30
        while not host.hellos:
            assert time.monotonic() < deadline, "it never came back"
            stream(host, ALWAYS_ON, 0.1)
        assert host.hello.reset_cause == ResetCause.WATCHDOG
        assert host.hello.boot_id != first.boot_id
        assert (host.hello.state, host.hello.limits_hash) == (NodeState.INIT, 0)
        board.watch(0.5)
        ticks = board.trace.ticks
        boot = next(i for i, tick in enumerate(ticks) if i and tick.t_us < ticks[i - 1].t_us)
        assert ticks[boot - 1].enabled == 1
        assert ticks[boot - 1].applied[0] < 4242, "the tick that hung told nothing"
        assert all((tick.enabled, tick.state) == (0, NodeState.INIT) for tick in ticks[boot:])
        link.close()


def test_outputs_stay_off_until_there_are_limits(board: Qemu) -> None:
    board.watch(0.5)
    host, link = board.plug()
    host.introduce()
    assert all(tick.enabled == 0 for tick in board.trace.ticks)
    assert len(board.trace.ticks) > 20
    host.upload()
    host.until(lambda: board.trace.ticks[-1].enabled)
    link.close()
