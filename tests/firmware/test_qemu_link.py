"""The host's own Link, through pyserial and a pty, on the firmware in QEMU's model of the board."""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import numpy as np
import pytest
from bare_host import CHANNELS
from linked import clear_at_rest
from qemu import ALWAYS_ON, TICK_US, WIDE, H, W

from kizzasi_bridge import LinkError
from kizzasi_bridge.link import Link
from kizzasi_bridge.protocol import Fault, NodeState, ResetCause
from kizzasi_bridge.states import State

pytestmark = [
    pytest.mark.prove,
    pytest.mark.skipif(not shutil.which("qemu-system-arm"), reason="qemu-system-arm is not installed"),
]
TARGET = np.array(ALWAYS_ON, dtype=np.int32)
TTL_MS = WIDE.ttl_max_ms
PATIENCE_S = 30.0
RAM, RAM_BYTES = 0x20002800, 1 << 14  # beyond what the firmware uses; boot_id is made of 4 KiB behind that


class SerialQemu:
    """A running board whose UART is a pty behind the link ``port``, as udev would name it."""

    def __init__(self, elf: Path, machine: str, port: Path) -> None:
        command = ["qemu-system-arm", "-M", f"mps2-{machine}", "-kernel", str(elf), "-display", "none"]
        command += ["-monitor", "none", "-serial", "pty", "-serial", "null"]
        noise = port.with_suffix(".ram")  # what RAM holds when power comes: QEMU would have it all zeros
        noise.write_bytes(os.urandom(RAM_BYTES))
        command += ["-device", f"loader,file={noise},addr={RAM:#x},force-raw=on"]
        self.port = port
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert self.process.stdout is not None
        said = b""
        deadline = time.monotonic() + PATIENCE_S
        while not (found := re.search(rb"redirected to (/dev/\S+) ", said)):
            assert select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0], said
            said += os.read(self.process.stdout.fileno(), 4096)
        scratch = port.with_suffix(".new")
        scratch.symlink_to(found[1].decode())
        scratch.rename(port)

    def __enter__(self) -> SerialQemu:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        """Pull the plug: process, pty and link are gone."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.port.unlink()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def shown(link: Link, wanted: NodeState) -> State:
    """The first STATE that shows it."""
    until(lambda: link.latest is not None and link.latest.state == wanted)
    assert link.latest is not None
    return link.latest


def stream(link: Link, states: int) -> list[State]:
    """A COMMAND for every STATE; the STATEs."""
    seen = []
    for _ in range(states):
        state = link.wait_state(link.latest.count if link.latest else 0, PATIENCE_S)
        assert state is not None
        seen.append(state)
        link.command(TARGET, state.t_us, TTL_MS)
    return seen


@pytest.mark.parametrize("machine", ["an385", "an386"])
def test_a_session_and_a_new_board_behind_the_same_name(patient: dict[str, Path], machine: str, tmp_path: Path):
    port = tmp_path / "port"
    link = Link(port)
    with SerialQemu(patient[machine], machine, port):
        hello = link.open(PATIENCE_S)
        assert hello.reset_cause == ResetCause.POWER_ON
        assert (hello.n_channels, hello.limits_hash) == (CHANNELS, 0)
        assert len(link.schema.channels) == CHANNELS
        assert link.schema.tick_us == TICK_US
        assert shown(link, NodeState.INIT).session == 0
        limits_hash = link.upload_limits(WIDE)
        assert link.hello.limits_hash == limits_hash
        shown(link, NodeState.READY)

        session = link.arm()
        seen = stream(link, 100)
        assert [s.state for s in seen[-50:]] == [NodeState.ARMED] * 50
        assert seen[-1].session == session
        assert seen[-1].applied.min() > 5 * W
        for a, b in pairwise(seen):
            if b.t_us - a.t_us == WIDE.period_us:
                assert np.abs(b.step).max() <= W
                assert np.abs(b.step - a.step).max() <= H
        until(lambda: link.clock is not None)

        link.estop()
        stream(link, 1)
        until(lambda: not link.estop_pending)
        assert shown(link, NodeState.ESTOP).fault == Fault.ESTOP_HOST
        assert link.session == 0
        clear_at_rest(link, PATIENCE_S)
        shown(link, NodeState.READY)
        again = link.arm()
        assert again not in (0, session)
        stream(link, 50)
        assert link.session == again
        first_boot, answers = link.hello.boot_id, link.clock
        before = link.counters
    try:
        until(lambda: not link.connected)
        assert link.session == 0
        assert not link.command(TARGET, 0, TTL_MS)
        with pytest.raises(LinkError, match="not connected"):
            link.arm()
        with SerialQemu(patient[machine], machine, port):
            until(lambda: link.connected)
            counters = link.counters
            assert counters["disconnects"] - before["disconnects"] == 1
            assert counters["reconnects"] - before["reconnects"] == 1
            assert counters["device_resets"] - before["device_resets"] == 1
            assert link.hello.boot_id != first_boot
            assert shown(link, NodeState.INIT).session == 0
            link.heartbeat()
            states = stream(link, 100)
            assert {s.state for s in states} == {NodeState.INIT}, "nothing arms it, whatever the host goes on sending"
            assert link.counters["commands_tx"] == counters["commands_tx"]
            with pytest.raises(LinkError, match="refuses ARM"):
                link.arm()
            assert link.upload_limits(WIDE) == limits_hash
            shown(link, NodeState.READY)
            assert link.arm()
            assert stream(link, 50)[-1].state == NodeState.ARMED
            rows = link.history()
            assert set(rows["connection"]) == {1, 2}
            assert set(rows["boot_id"]) == {first_boot, link.hello.boot_id}
    finally:
        link.close()
    assert answers is not None
    lost, got = counters["lost_states"], counters["states_rx"]
    rtt_ms = answers.rtt_us / 1e3
    sys.stdout.write(f"\n{machine}: {got} STATEs, {lost} lost; answers in {rtt_ms:.1f} ms at a tick of 5 ms\n")
