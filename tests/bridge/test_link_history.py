"""What a link remembers: the ring, rows copied while others are written, gaps, and the table of what led to a fault."""

from __future__ import annotations

import csv
import io
import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from kizzasi_bridge import ConnectorError
from kizzasi_bridge.blackbox import BlackBox, write_csv
from kizzasi_bridge.board import PosixBoard
from kizzasi_bridge.channel_table import channel_table
from kizzasi_bridge.history import History
from kizzasi_bridge.link import Link
from kizzasi_bridge.protocol import ChannelLimits, Fault, Limits, NodeState
from kizzasi_bridge.schema import Channel, Schema, Sensor
from kizzasi_bridge.setpoints import setpoint_units, setpoints_si
from kizzasi_bridge.states import State

SCHEMA = Schema.positions(("shoulder", "elbow"), scale=2.0**-21)
LIMITS = Limits((ChannelLimits(-1_000_000, 1_000_000, 4000, 100),) * 2, 2000, 3, 200, 300)


def state(k: int, n: int = 2, m: int = 3, **fields: int) -> State:
    """The k-th STATE; every value in it tells k."""
    values = np.full(n + m, k, dtype=np.int32)
    values.flags.writeable = False
    told = {"count": k, "recv_ns": 2_000_000 * k, "t_us": 2000 * k & 0xFFFFFFFF, "state": 2, "fault": 0, "nonce": 0}
    told |= {"session": k, "applied_seq": k & 0xFFFF, "clamp_mask": 0, "rx_errors": k & 0xFFFF, "ignored": 0}
    told |= {"misses": 0, "stale": k & 0xFFFF}
    return State(**(told | fields), applied=values[:n], step=values[:n], sensors=values[n:])


def remembered(size: int, states: int) -> History:
    history = History(size)
    history.restart(2, 3)
    for k in range(1, states + 1):
        history.append(state(k), 7, 1)
    return history


@pytest.mark.parametrize("states", [0, 1, 9, 10, 11, 74, 75, 1000])
def test_the_ring_keeps_the_newest_in_order(states: int):
    rows = remembered(10, states).newest()
    assert rows["count"].tolist() == list(range(max(0, states - 10) + 1, states + 1))
    for row in rows:
        k = row["count"]
        assert (row["recv_ns"], row["t_us"], row["session"], row["stale"]) == (2_000_000 * k, 2000 * k, k, k)
        assert (row["state"], row["boot_id"], row["connection"]) == (2, 7, 1)
        assert row["applied"].tolist() == [k, k]
        assert row["sensors"].tolist() == [k, k, k]


def test_fewer_than_all_and_a_copy():
    history = remembered(10, 20)
    assert history.newest(3)["count"].tolist() == [18, 19, 20]
    assert len(history.newest(0)) == len(history.newest(-1)) == 0
    rows = history.newest(2)
    rows["applied"] = 0
    assert history.newest(2)["applied"].tolist() == [[19, 19], [20, 20]]


def test_another_shape_begins_anew_and_the_same_goes_on():
    history = remembered(10, 4)
    history.restart(2, 3)
    assert len(history.newest()) == 4
    history.restart(1, 1)
    assert len(history.newest()) == 0
    history.append(state(9, 1, 1), 8, 2)
    assert history.newest()["sensors"].tolist() == [[9]]


def test_no_row_is_torn_while_the_writer_runs_round_and_round():
    history = remembered(100, 0)
    states = [state(k) for k in range(1, 20_001)]
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            for each in states:
                history.append(each, 7, 1)

    writer = threading.Thread(target=write)
    writer.start()
    end = time.monotonic() + 1.0
    copies = 0
    try:
        while time.monotonic() < end:
            rows = history.newest()
            copies += 1
            k = rows["count"].astype(np.int64)
            assert (np.diff(k) % 20_000 == 1).all()
            assert (rows["stale"] == k & 0xFFFF).all()
            assert (rows["applied"] == k[:, None]).all()
            assert (rows["sensors"] == k[:, None]).all()
    finally:
        done.set()
        writer.join()
    assert copies > 100


def test_a_link_remembers_over_an_unplugged_cable_and_marks_the_gap():
    with PosixBoard(SCHEMA, boot_id=77) as board, Link(board.port, history=3000) as link:
        link.upload_limits(LIMITS)
        latest = link.latest
        while latest is None or latest.state != NodeState.READY:
            latest = link.wait_state(latest.count if latest else 0, 5.0)
        link.wait_state(latest.count + 50, 5.0)
        board.unplug()
        while link.connected:
            time.sleep(0.002)
        kept = link.history()
        assert kept["count"].tolist() == list(range(1, len(kept) + 1))
        newest = link.latest
        assert kept[-1]["count"] == newest.count
        assert kept[-1]["t_us"] == newest.t_us
        board.replug()
        link.wait_state(newest.count + 20, 10.0)
        rows = link.history()
    ready = rows[rows["state"] == NodeState.READY]
    before, after = (ready[ready["connection"] == k] for k in (1, 2))
    assert len(before) >= 50
    assert len(after) >= 20
    assert set(rows["boot_id"]) == {77}
    for one in (before, after):
        assert (np.diff(one["t_us"].astype(np.int64)) % 2000 == 0).all()
    assert all(a["recv_ns"] <= b["recv_ns"] for a, b in pairwise(rows))


def test_a_history_of_nothing_is_refused():
    with pytest.raises(ConnectorError, match="history must be at least 1, found 0"):
        Link("/dev/null", history=0)


def led_to_a_fault(at: int, after: int, count_from: int = 1) -> np.ndarray:
    history = History(4096)
    history.restart(2, 2)
    for k in range(count_from, at):
        history.append(state(k, 2, 2, misses=max(0, k - at + 4)), 7, 1)
    for k in range(at, at + after):
        history.append(state(k, 2, 2, state=NodeState.FAILSAFE, fault=Fault.TTL, misses=3), 7, 1)
    return history.newest()


def test_a_fault_is_told_once_and_kept_when_the_ring_has_moved_on():
    box = BlackBox()
    assert not box.look(led_to_a_fault(600, 0), SCHEMA)
    assert not len(box.rows)
    assert not box.look(led_to_a_fault(600, 100), SCHEMA)  # a second after it is 500 rows
    assert box.rows["count"][box.at] == 600
    assert box.look(led_to_a_fault(600, 502), SCHEMA)
    assert not box.look(led_to_a_fault(600, 700), SCHEMA)
    assert (len(box.rows), box.at) == (600 + 500, 599)
    assert not box.look(led_to_a_fault(600, 2000)[800:], SCHEMA)  # its beginning is no longer there
    assert (len(box.rows), box.at) == (1100, 599)
    assert box.look(led_to_a_fault(5000, 502, count_from=4000), SCHEMA)
    assert box.rows["count"][box.at] == 5000


def test_a_fault_that_was_there_before_is_none_that_began():
    box = BlackBox()
    assert not box.look(led_to_a_fault(1, 1000), SCHEMA)
    assert not len(box.rows)


def test_the_table_is_in_si(tmp_path: Path):
    rows = led_to_a_fault(3, 1)
    write_csv(tmp_path / "fault.csv", rows, SCHEMA, 2000)
    with (tmp_path / "fault.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["fault"] for row in table] == ["NONE", "NONE", "TTL"]
    assert [row["state"] for row in table] == ["ARMED", "ARMED", "FAILSAFE"]
    assert table[2]["t_us"] == "6000"
    assert float(table[1]["applied elbow/position [rad]"]) == pytest.approx(2 * 2.0**-21)
    assert float(table[1]["shoulder/position [rad]"]) == pytest.approx(2 * 2.0**-21)
    with pytest.raises(ConnectorError, match="No such file"):
        write_csv(tmp_path / "no" / "folder.csv", rows, SCHEMA, 2000)


def test_setpoints_are_velocities_and_torques_where_the_channels_are():
    scale = 2.0**-10
    schema = Schema(
        "b", 1000,
        (Channel("a/position", "rad", 5, scale), Channel("b/velocity", "rad", 7, scale, "velocity"),
         Channel("c/torque", "N·m", 0, 0.5, "torque")),
        (Sensor("a", "rad", 5, scale, 0), Sensor("b", "rad", 7, scale, 1), Sensor("c", "rad", 0, scale, 2)),
    )  # fmt: skip
    raw = np.array([[5, 7, 0], [1029, 4, -3]], dtype=np.int32)
    assert setpoints_si(schema, raw, 2000).tolist() == [[0.0, 7 * scale * 500, 0.0], [1.0, 4 * scale * 500, -1.5]]
    assert np.isnan(setpoints_si(schema, raw, 0)[:, 1]).all()
    assert setpoint_units(schema) == ["rad", "rad/s", "N·m"]
    now = state(3, 3, 3)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(channel_table(schema, now, 2000, raw, 120))
    rows = [line.split() for line in console.export_text().splitlines()]
    error = rows[0].index("error")
    assert [len(row) for row in rows[1:]] == [9, 7, 7], "an error and a speed of positions only"
    assert rows[1][error] == f"{(3 - 5) * scale - (3 - 5) * scale:+.4f}"
    assert (rows[2][1], rows[2][3]) == (f"{3 * scale * 500:+.4f}", "rad/s")
