"""The parts of the link that need no port: page assembly, steps, calibration, and the transmitter's drops."""

from __future__ import annotations

import os
import select
import tty

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kizzasi_bridge import Decoder, WireError
from kizzasi_bridge.calibration import Calibration
from kizzasi_bridge.protocol import INVALID, VALUES_PER_PAGE, Command, MsgType, State
from kizzasi_bridge.schema import Channel
from kizzasi_bridge.states import StateAssembler
from kizzasi_bridge.tx import Transmitter

I32 = st.integers(-(2**31) + 1, 2**31 - 1)


def pages(values: list[int], t_us: int) -> list[bytes]:
    chunks = [values[i : i + VALUES_PER_PAGE] for i in range(0, len(values), VALUES_PER_PAGE)]
    return [
        State(2, 0, k, len(chunks), 9, 8, 7, 6, t_us, 5, 4, 3, 2, tuple(chunk)).pack() for k, chunk in enumerate(chunks)
    ]


@given(st.integers(1, 40), st.integers(0, 120), st.data())
def test_pages_are_joined_whatever_their_number(n: int, m: int, data: st.DataObject):
    values = data.draw(st.lists(I32, min_size=n + m, max_size=n + m))
    assembler = StateAssembler()
    assembler.restart(n, m)
    parts = pages(values, 1000)
    assert all(assembler.feed(part, 1) is None for part in parts[:-1])
    state = assembler.feed(parts[-1], 42)
    assert (state.count, state.recv_ns, state.t_us, state.clamp_mask, state.stale) == (1, 42, 1000, 6, 2)
    assert [*state.applied, *state.sensors] == values
    assert not state.step.any()
    with pytest.raises(ValueError, match="read-only"):
        state.sensors[:] = 0


@given(st.integers(0, 2), st.integers(0, 2**32 - 1))
def test_a_lost_page_loses_that_state_only(missing: int, t_us: int):
    values = list(range(3 * VALUES_PER_PAGE))
    assembler = StateAssembler()
    assembler.restart(10, len(values) - 10)
    torn = pages(values, t_us)
    del torn[missing]
    assert all(assembler.feed(part, 0) is None for part in torn)
    whole = [assembler.feed(part, 0) for part in pages(values, (t_us + 2000) & 0xFFFFFFFF)]
    assert [s is None for s in whole] == [True, True, False]
    assert whole[-1].t_us == (t_us + 2000) & 0xFFFFFFFF


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(-4000, 4000)), min_size=1, max_size=30), st.integers(0, 2**32 - 1)
)
def test_step_is_per_period_over_lost_states_and_the_clock_wrap(moves: list[tuple[int, int]], t_us: int):
    assembler = StateAssembler()
    assembler.restart(1, 0)
    assembler.set_period(2000)
    q, lost = 100, 0
    assembler.feed(pages([q], t_us)[0], 0)
    for elapsed, step in moves:
        q += elapsed * step
        t_us = (t_us + 2000 * elapsed) & 0xFFFFFFFF
        lost += elapsed - 1
        assert assembler.feed(pages([q], t_us)[0], 0).step[0] == step
    assert assembler.lost == lost


@pytest.mark.parametrize("size", [27, 29, 28 + 4 * 3])
def test_malformed_states_are_refused(size: int):
    assembler = StateAssembler()
    assembler.restart(1, 1)
    with pytest.raises(WireError):
        assembler.feed((bytes((0, 0, 0, 1)) + bytes(60))[:size], 0)


@given(st.lists(st.floats(-100, 100), min_size=3, max_size=3))
def test_calibration_rounds_to_the_nearest_quantum(si: list[float]):
    row = [Channel("a", zero=5, scale=2.0**-21), Channel("b", zero=-9, scale=1e-3), Channel("c", "N·m", 0, 0.5)]
    calibration = Calibration(row)
    raw = calibration.to_raw(si)
    assert raw.dtype == np.int32
    scale = np.array([c.scale for c in row])
    assert (np.abs(calibration.to_si(raw) - si) <= 0.5 * scale * (1 + 1e-9)).all()
    np.testing.assert_array_equal(calibration.to_raw(calibration.to_si(raw)), raw)


def test_calibration_never_turns_nonsense_into_motion():
    calibration = Calibration([Channel("a", scale=1e-6)] * 5)
    raw = calibration.to_raw([np.nan, np.inf, -np.inf, 1e30, -1e30])
    assert raw.tolist() == [INVALID, INVALID, INVALID, 2**31 - 1, -(2**31) + 1]


def test_commands_on_the_wire_are_what_was_asked_for():
    read, write = os.pipe()
    try:
        tx = Transmitter()
        tx.set_channels(3)
        tx.attach(write)
        raw = np.array([1, -2, 2**31 - 1], dtype=np.int32)
        for k in range(3):
            assert tx.command(0xDEADBEEF, raw + 0 * k, 0xFFFFFFFF + k & 0xFFFFFFFF, 150)  # across the clock wrap
        frames = Decoder().feed(os.read(read, 4096))
    finally:
        os.close(read)
        os.close(write)
    assert [f.type for f in frames] == [MsgType.COMMAND] * 3
    assert [(f.seq - frames[0].seq) & 0xFFFF for f in frames] == [0, 1, 2]
    assert [Command.unpack(f.payload).obs_t_us for f in frames] == [0xFFFFFFFF, 0, 1]
    assert Command.unpack(frames[0].payload).values == (1, -2, 2**31 - 1)
    assert Command.unpack(frames[0].payload).session == 0xDEADBEEF


def test_a_full_pipe_drops_and_counts():
    read, write = os.pipe()
    os.set_blocking(write, False)
    try:
        tx = Transmitter()
        tx.attach(write)
        while tx.send(MsgType.HEARTBEAT):
            pass
        sent = tx.sent[MsgType.HEARTBEAT]
        assert not tx.send(MsgType.HEARTBEAT)
        assert tx.failed == 2
        os.read(read, 65536)
        assert tx.send(MsgType.HEARTBEAT)
        assert tx.sent[MsgType.HEARTBEAT] == sent + 1
        tx.detach()
        assert not tx.send(MsgType.HEARTBEAT)
        assert tx.failed == 3
    finally:
        os.close(read)
        os.close(write)


def test_what_is_of_no_importance_takes_nobodys_place():
    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(slave, False)
    try:
        tx = Transmitter()
        tx.attach(slave)
        offered = 0
        while tx.offer(MsgType.TIME_REQ, bytes(4)):
            offered += 1
        assert not tx.offer(MsgType.TIME_REQ, bytes(4))
        assert tx.blocked == 0
        decoder, frames = Decoder(), []
        while select.select([master], [], [], 0.2)[0]:
            frames += decoder.feed(os.read(master, 65536))
        assert len(frames) == offered > 100, "what was in the buffer is still there"
        while not tx.blocked:
            tx.send(MsgType.ESTOP)  # an ESTOP is another matter
    finally:
        os.close(master)
        os.close(slave)
