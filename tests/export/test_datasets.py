"""Training data from real files of every format, against what was written into them, and generated systems."""

from __future__ import annotations

import importlib
import json
import re
import sqlite3
import sys
import tomllib
import zipfile
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

import kizzasi_export
from kizzasi_edge.errors import ConfigError
from kizzasi_edge.toml_file import validate
from kizzasi_export.datasets import DataSection, Streams, open_streams
from kizzasi_export.datasets.clock import Clock, Track

ROOT = Path(__file__).resolve().parents[2]
NAB = ROOT.parent / "shared/data/nab/data/realKnownCause"
RATE = 100.0
STORE = get_typestore(Stores.LATEST)


def open_(folder: Path, rate_hz: float | None = RATE, **keys: Any) -> Streams:
    return open_streams(DataSection(**keys), base=folder, rate_hz=rate_hz, where="train.toml: [data]")


def write_csv(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    pyarrow.csv.write_csv(pa.table({name: pa.array(values) for name, values in columns.items()}), path)
    return path


def drive(rows: int = 50, rate_hz: float = RATE) -> dict[str, Any]:
    """A drive's columns: every value tells its row."""
    t = np.arange(rows) / rate_hz
    return {"t": t, "q": np.arange(rows) * 1.0, "dq": np.arange(rows) + 0.5, "u": np.arange(rows) * 10.0}


QU = {"inputs": ["q"], "outputs": ["u"]}
"""Sections of the tests read these."""


# --- keys and paths


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({}, r"train.toml: \[data\]: path: missing; expected a file"),
        ({"path": "none.csv"}, r"none.csv: no such data file"),
        ({"path": "drives/none_*.csv"}, r"path: 'drives/none_\*.csv' matches nothing in /"),
        ({"path": []}, "path: found an empty list"),
        ({"path": "notes.txt"}, r"notes.txt: found ending '.txt', expected one of .csv"),
        ({"path": "drives"}, "drives: found a folder without meta/info.json or metadata.yaml"),
        ({"path": "drive.csv", "outputs": ["u"]}, "inputs: missing; expected the names"),
        ({"path": "drive.csv", "inputs": ["q"]}, "outputs: missing; expected the names"),
        ({"path": "drive.csv", **QU, "lag": 3}, "lag: not used by format 'csv'; expected only episode, format"),
        ({"path": "drive.csv", **QU, "time_unit": "ms"}, "time: missing; expected a time column for time_unit"),
        ({"path": "drive.csv", **QU, "resample": True}, "time: missing; expected a time column for resample"),
        ({"path": "drive.csv", **QU, "max_gap_s": 1.0}, "time: missing; expected a time column for max_gap_s"),
        ({"path": "drive.csv", **QU, "time": "t", "resample": True}, "max_gap_s: missing; expected how old"),
        ({"path": "drive.csv", **QU, "time": "t", "max_gap_s": 0.001}, "found 0.001, expected at least one step"),
        ({"path": "xy.npz", "horizon": 1}, "horizon: not used by format 'numpy without inputs'"),
        ({"path": "drive.csv", **QU, "horizon": 50}, "no recording is longer than horizon"),
        ({"format": "generated"}, "system: missing; expected one of lorenz, mackey_glass, pendulum"),
        ({"format": "generated", "system": "narma10", "noise": 0.1}, "noise: not used by format 'generated'"),
        ({"format": "generated", "system": "lorenz", "path": "x.csv"}, "path: not used by format 'generated'"),
        ({"format": "generated", "system": "delay_copy", "lag": 9, "steps": 17}, "steps: found 17, expected at least"),
    ],
)
def test_keys_and_paths(keys: dict[str, Any], match: str, tmp_path: Path) -> None:
    write_csv(tmp_path / "drive.csv", **drive())
    write_csv(tmp_path / "drives/a.csv", **drive())
    (tmp_path / "notes.txt").write_text("nothing")
    np.savez(tmp_path / "xy.npz", x=np.zeros((9, 1)), y=np.zeros((9, 1)))
    with pytest.raises(ConfigError, match=match):
        open_(tmp_path, **keys)


def test_resampling_needs_a_rate(tmp_path: Path) -> None:
    write_csv(tmp_path / "drive.csv", **drive())
    with pytest.raises(ConfigError, match=r"resample: found true, expected \[export\] sample_rate_hz"):
        open_(tmp_path, None, path="drive.csv", **QU, time="t", resample=True, max_gap_s=1.0)


def test_a_library_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(tmp_path / "drive.csv", **drive())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        ConfigError, match=r"drive.csv: reading it needs pyarrow: pip install 'kizzasi-edge\[datasets\]'"
    ):
        open_(tmp_path, path="drive.csv", **QU)


def test_libraries_are_imported_only_where_a_format_needs_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "xy.npz", x=np.zeros((9, 1)), y=np.zeros((9, 1)))
    monkeypatch.setattr(kizzasi_export, "datasets", kizzasi_export.datasets)  # bound anew by the import below
    for name in [name for name in sys.modules if name.startswith("kizzasi_export.datasets")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("pyarrow", "rosbags"):
        monkeypatch.setitem(sys.modules, name, None)
    fresh = importlib.import_module("kizzasi_export.datasets")
    for keys in ({"path": "xy.npz"}, {"format": "generated", "system": "delay_copy"}):
        assert fresh.open_streams(fresh.DataSection(**keys), base=tmp_path, rate_hz=None, where="").steps


# --- tables


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_tables(ending: str, tmp_path: Path) -> None:
    columns = drive() | {"t": (np.arange(50) * 10 + 7).astype(np.int32), "w": np.arange(50) % 2}
    if ending == "csv":
        write_csv(tmp_path / "drive.csv", **columns)
    else:
        pyarrow.parquet.write_table(pa.table(columns), tmp_path / "drive.parquet")
    keys: dict[str, Any] = {"inputs": ["dq", "q"], "outputs": ["q"], "weight": "w", "time": "t", "time_unit": "ms"}
    streams = open_(tmp_path, path=f"drive.{ending}", horizon=3, **keys)
    (recording,) = streams
    np.testing.assert_array_equal(recording.x, np.stack([np.arange(47) + 0.5, np.arange(47)], axis=1))
    np.testing.assert_array_equal(recording.y[:, 0], np.arange(3, 50))
    np.testing.assert_array_equal(recording.weight, np.arange(3, 50) % 2)  # the weight of y, not of x
    assert recording.x.dtype == recording.y.dtype == np.float32
    assert (streams.input_names, streams.output_names) == (("dq", "q"), ("q",))
    assert streams.sample_rate_hz == pytest.approx(100)
    assert streams.source["files"].keys() == {f"drive.{ending}"}
    assert len(streams.source["files"][f"drive.{ending}"]) == 64
    json.dumps(streams.source)


def test_files_and_episodes_are_recordings_that_no_window_crosses(tmp_path: Path) -> None:
    write_csv(tmp_path / "drives/b.csv", **drive(20), run=["x"] * 8 + ["y"] * 12)
    write_csv(tmp_path / "drives/a.csv", **drive(10), run=["x"] * 10)
    streams = open_(tmp_path, path="drives/*.csv", inputs=["q"], outputs=["q"], episode="run", time="t")
    assert [len(recording) for recording in streams] == [10, 8, 12]  # a.csv before b.csv
    assert [recording.source.split("/")[-1] for recording in streams] == [
        "a.csv, run x",
        "b.csv, run x",
        "b.csv, run y",
    ]
    assert streams.source["files"].keys() == {"drives/a.csv", "drives/b.csv"}
    windows = streams.windows(4, 2)
    starts = [0, 2, 4, 6, 0, 2, 4, 8, 10, 12, 14, 16]
    np.testing.assert_array_equal(windows.x[:, :, 0], [[s, s + 1, s + 2, s + 3] for s in starts])
    np.testing.assert_array_equal(windows.y, windows.x)
    assert len(streams.windows(10)) == 2  # the recording of 8 steps has none
    with pytest.raises(ConfigError, match="recordings of 8 to 12 steps, expected equal lengths or a window"):
        streams.windows(None)
    with pytest.raises(ConfigError, match="sequences of 12 steps, expected at least window = 13"):
        streams.windows(13)
    shifted = open_(tmp_path, path="drives/*.csv", inputs=["q"], outputs=["q"], episode="run", horizon=2)
    assert all((recording.y == recording.x + 2).all() for recording in shifted)
    assert [len(recording) for recording in shifted] == [8, 6, 10]


def test_vector_columns(tmp_path: Path) -> None:
    state = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(60.0)), 3)
    ragged = pa.array([[1.0, 2.0]] * 19 + [[1.0]])
    pyarrow.parquet.write_table(pa.table({"s": state, "r": ragged}), tmp_path / "v.parquet")
    (recording,) = streams = open_(tmp_path, path="v.parquet", inputs=["s"], outputs=["s[2]", "s[0]"])
    assert streams.input_names == ("s[0]", "s[1]", "s[2]")
    assert streams.output_names == ("s[2]", "s[0]")
    np.testing.assert_array_equal(recording.x, np.arange(60).reshape(20, 3))
    np.testing.assert_array_equal(recording.y, recording.x[:, [2, 0]])
    for inputs, match in (
        (["s[3]"], r"no column 's\[3\]'; found s\[0\], s\[1\], s\[2\], r"),
        (["s", "s[1]"], r"column 's\[1\]' chosen twice"),
        (["r"], "column 'r' has 1.* elements at row 19, expected 2"),
    ):
        with pytest.raises(ConfigError, match=match):
            open_(tmp_path, path="v.parquet", inputs=inputs, outputs=["s"])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"q": np.r_[np.zeros(6), np.nan, np.zeros(43)]}, r"drive.csv, e 0: column 'q' holds nan at row 6, .*\(1 such"),
        ({"q": [None if i == 7 else i for i in range(50)]}, "column 'q' holds nan at row 7"),
        ({"u": np.r_[np.zeros(6), np.inf, np.zeros(43)]}, "column 'u' holds inf at row 6"),
        ({"u": np.full(50, 1e39)}, r"column 'u' holds 1e\+39 at row 0, expected finite numbers \(50 such"),
        ({"q": ["a"] * 50}, "column 'q' holds object, expected numbers"),
        ({"q": None}, "drive.csv: no column 'q'; found t, u, w, e, dq"),
        ({"w": -np.arange(50.0)}, "column 'w' is negative at row 1, expected ≥ 0"),
        ({"t": np.r_[np.arange(9), 7, np.arange(10, 50)] / 100}, r"time at row 9 is -0.01 s after the row before"),
        ({"t": np.r_[np.arange(9), 8, np.arange(10, 50)] / 100}, r"time at row 9 is \+0 s after .* increasing"),
        ({"t": np.r_[0.0, np.nan, np.arange(2, 50) / 100]}, "time column 't' holds no time at row 1"),
        ({"t": ["noon"] * 50}, "time column 't' holds object, expected timestamps, or numbers"),
        ({"t": np.arange(50) / 50}, r"drive.csv, e 0: found 50 Hz \(steps vary by 0 ms.*expected 100 Hz ± 1%"),
        ({"t": np.r_[np.arange(9), np.arange(20, 61)] / 100}, r"nothing came for 0.12 s after row 8.*at most 0.1 s"),
        ({"e": [0] * 9 + [1] * 9 + [0] * 32}, "episode 0 begins again at row 18"),
        ({"e": [0] * 9 + [None] * 41}, "drive.csv: no episode at row 9, expected a value in every row"),
    ],
)
def test_what_is_wrong_in_a_table_is_named(change: dict[str, Any], match: str, tmp_path: Path) -> None:
    columns = drive() | {"w": np.ones(50), "e": np.zeros(50, int)} | change
    write_csv(tmp_path / "drive.csv", **{name: values for name, values in columns.items() if values is not None})
    with pytest.raises(ConfigError, match=match) as caught:
        open_(tmp_path, path="drive.csv", **QU, weight="w", time="t", episode="e")
    assert len(str(caught.value)) < 500


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"nothing")
    (tmp_path / "b.csv").write_text("q,u\n1,2\n1\n")
    (tmp_path / "c.csv").write_text("q,u\n")
    (tmp_path / "d.csv").write_text("q,u,q\n1,2,3\n")
    (tmp_path / "e.npz").write_bytes(b"nothing")
    (tmp_path / "f.mcap").write_bytes(b"nothing")
    for name, match in (
        ("a.parquet", "a.parquet: cannot be read as Parquet"),
        ("b.csv", "b.csv: cannot be read as CSV.*Expected 2 columns, got 1"),
        ("c.csv", "c.csv: found no rows"),
        ("d.csv", "column 'q' is there more than once"),
        ("e.npz", "cannot be read as .npz"),
    ):
        with pytest.raises(ConfigError, match=match):
            open_(tmp_path, path=name, **QU)
    with pytest.raises(ConfigError, match=r"f.mcap: cannot be read as a rosbag2"):
        open_(tmp_path, path="f.mcap", inputs=["/a:b"], outputs=["/a:b"])


def test_files_that_do_not_fit_each_other_are_both_named(tmp_path: Path) -> None:
    for name, width, rate in (("a", 2, 100), ("b", 3, 100), ("c", 2, 105)):
        np.savez(tmp_path / f"{name}.npz", x=np.zeros((9, width)), y=np.zeros((9, 1)))
        s = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(9 * width)), width)
        pyarrow.parquet.write_table(pa.table({"s": s, "t": np.arange(9) / rate}), tmp_path / f"{name}.parquet")
    with pytest.raises(ConfigError, match=r"b.npz: x has 3 channels, expected 2 as in .*a.npz"):
        open_(tmp_path, path=["a.npz", "b.npz"])
    with pytest.raises(ConfigError, match=r"b.parquet: channels .*s\[2\].* as in .*a.parquet"):
        open_(tmp_path, path=["a.parquet", "b.parquet"], inputs=["s"], outputs=["s"])
    with pytest.raises(ConfigError, match=r"rates from 100 to 105 Hz, expected one rate"):
        open_(tmp_path, None, path=["a.parquet", "c.parquet"], inputs=["s"], outputs=["s"], time="t")


# --- time


@pytest.mark.parametrize(("rate_hz", "fits"), [(99.2, True), (98.8, False), (101.2, False)])
def test_rates_agree_within_a_percent_whatever_the_jitter(rate_hz: float, fits: bool, tmp_path: Path) -> None:
    columns = drive(200, rate_hz)
    columns["t"][1::20] += 0.004
    write_csv(tmp_path / "drive.csv", **columns)
    if fits:
        streams = open_(tmp_path, path="drive.csv", **QU, time="t")
        assert streams.sample_rate_hz == pytest.approx(rate_hz)
        assert streams.source["jitter_s"] == pytest.approx(0.004)
    else:
        with pytest.raises(ConfigError, match=rf"found {rate_hz} Hz .*expected 100 Hz ± 1%"):
            open_(tmp_path, path="drive.csv", **QU, time="t")


def test_gaps_split_a_recording(tmp_path: Path) -> None:
    columns = drive(30)
    columns["t"][12:] += 0.05
    write_csv(tmp_path / "drive.csv", **columns)
    keys = {"path": "drive.csv", "inputs": ["q"], "outputs": ["q"], "time": "t"}
    assert [len(r) for r in open_(tmp_path, **keys)] == [30]  # 6 periods are jitter
    first, second = open_(tmp_path, **keys, max_gap_s=0.03)
    np.testing.assert_array_equal(first.x[:, 0], np.arange(12))
    np.testing.assert_array_equal(second.x[:, 0], np.arange(12, 30))
    source = open_(tmp_path, **keys).source
    assert source["longest_step_s"] == pytest.approx(0.06)
    assert source["measured_rate_hz"] == pytest.approx([100, 100])


def test_resampling_holds_the_latest_value_and_never_a_later_one(tmp_path: Path) -> None:
    t = np.array([0.0, 0.014, 0.016, 0.0399, 0.05, 0.2, 0.21, 0.21, 0.225])
    write_csv(tmp_path / "drive.csv", t=t, q=np.arange(len(t)))
    keys = {"path": "drive.csv", "inputs": ["q"], "outputs": ["q"], "time": "t", "resample": True}
    first, second = streams = open_(tmp_path, **keys, max_gap_s=0.03)
    assert streams.sample_rate_hz == RATE
    np.testing.assert_array_equal(first.x[:, 0], [0, 0, 2, 2, 3, 4, 4, 4, 4])  # at 0 … 80 ms; 30 ms old at 80
    np.testing.assert_array_equal(second.x[:, 0], [5, 7, 7])  # at 200, 210, 220 ms


@settings(max_examples=200, deadline=None)
@given(data=st.data(), resample=st.booleans())
def test_alignment_against_a_loop(data: st.DataObject, resample: bool) -> None:
    """Several topics: step by step, the latest value of each that is not in the future and not too old."""
    ms = st.lists(st.integers(0, 400), min_size=1, max_size=30, unique=not resample).map(sorted)
    stamps = [np.array(data.draw(ms), np.int64) * 1_000_000 for _ in range(data.draw(st.integers(1, 3)))]
    tracks = [Track(str(i), s, np.stack([s / 1e6, np.arange(len(s))], axis=1)) for i, s in enumerate(stamps)]
    gap_ms = data.draw(st.integers(10, 60))

    start, end = max(s[0] for s in stamps), max(s[-1] for s in stamps)
    ticks = range(int(start), int(end) + 1, 10_000_000) if resample else [t for t in stamps[0].tolist() if t >= start]
    expected: list[list[list[float]]] = []
    last = None
    for tick in ticks:
        rows = [max(i for i, stamp in enumerate(s) if stamp <= tick) for s in stamps]
        if any(tick - s[i] > gap_ms * 1e6 for s, i in zip(stamps, rows, strict=True)):
            last = None
            continue
        if last is None or tick - last > gap_ms * 1e6:
            expected.append([])
        expected[-1].append([v for s, i in zip(stamps, rows, strict=True) for v in (s[i] / 1e6, i)])
        last = tick
    found = Clock(RATE, resample, gap_ms / 1e3).align(tracks)
    assert [stretch.tolist() for stretch in found] == expected


@pytest.mark.skipif(not NAB.exists(), reason="the NAB recordings are not here")
def test_real_recordings() -> None:
    keys: dict[str, Any] = {"inputs": ["value"], "outputs": ["value"], "time": "timestamp", "horizon": 1}
    (taxi,) = streams = open_(NAB, 1 / 1800, path="nyc_taxi.csv", **keys)
    text = (NAB / "nyc_taxi.csv").read_text().splitlines()
    assert (len(taxi), taxi.x[0, 0], taxi.y[-1, 0]) == (len(text) - 2, 10844, float(text[-1].split(",")[1]))
    assert streams.sample_rate_hz == pytest.approx(1 / 1800)
    assert len(streams.windows(48 * 7)) == 30  # weeks
    with pytest.raises(ConfigError, match=r"found 0.000555556 Hz .* expected 0.00333333 Hz"):
        open_(NAB, 1 / 300, path="nyc_taxi.csv", **keys)
    with pytest.raises(ConfigError, match=r"machine_temperature.*time at row \d+ is -3300 s after the row before"):
        open_(NAB, 1 / 300, path="machine_temperature_system_failure.csv", **keys)
    with pytest.raises(ConfigError, match=r"ec2_request.*\+0 s after the row before.*\(11 such row"):
        open_(NAB, 1 / 300, path="ec2_request_latency_system_failure.csv", **keys)
    with pytest.raises(ConfigError, match=r"hold.csv: nothing came for 68400 s after row 11, expected at most 3000 s"):
        open_(NAB, 1 / 300, path="rogue_agent_key_hold.csv", **keys)
    held = open_(NAB, 1 / 300, path="rogue_agent_key_hold.csv", **keys, max_gap_s=600.0)
    times = pyarrow.csv.read_csv(NAB / "rogue_agent_key_hold.csv")["timestamp"].to_numpy()
    stretches = np.split(np.arange(len(times)), np.flatnonzero(np.diff(times) > np.timedelta64(600, "s")) + 1)
    assert [len(r) for r in held] == [len(s) - 1 for s in stretches if len(s) > 1]  # the last has no next value


# --- numpy


def test_damaged_numpy_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez_compressed(path, x=np.random.default_rng(0).standard_normal((100, 2)), y=np.zeros((100, 1)))
    whole = path.read_bytes()
    for damaged in (whole[:-50], whole[:200], whole[:300] + bytes(300) + whole[600:]):
        path.write_bytes(damaged)
        with pytest.raises(ConfigError, match=r"d\.npz: cannot be read as \.npz"):
            open_(tmp_path, path="d.npz")
    with zipfile.ZipFile(path, "w") as file:  # entries that are no arrays
        file.writestr("x", "hello")
        file.writestr("y", "world")
    with pytest.raises(ConfigError, match=r"d\.npz: x is \[\]"):
        open_(tmp_path, path="d.npz")
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 3), }".ljust(117) + b"\n"
    for text in (header, b"{'descr': <<<".ljust(118)):
        (tmp_path / "d.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00" + text)
        with pytest.raises(ConfigError, match=r"d\.npy: cannot be read as \.npy"):
            open_(tmp_path, path="d.npy", inputs=["0"], outputs=["1"])


def test_numpy(tmp_path: Path) -> None:
    x, y = np.arange(24.0).reshape(2, 6, 2), np.arange(12.0).reshape(2, 6, 1)
    np.savez(tmp_path / "xy.npz", x=x, y=y, weight=y[..., 0] + 1)
    streams = open_(tmp_path, path="xy.npz")
    assert [len(r) for r in streams] == [6, 6]
    np.testing.assert_array_equal([r.x for r in streams], x)
    np.testing.assert_array_equal([r.weight for r in streams], y[..., 0] + 1)
    assert streams.input_names is streams.output_names is streams.sample_rate_hz is None
    np.testing.assert_array_equal(streams.windows(3).y, y.reshape(4, 3, 1))
    np.testing.assert_array_equal(streams.windows(None).x, x)

    columns = drive()
    np.savez(tmp_path / "named.npz", **columns, v=np.stack([columns["q"], columns["u"]], axis=1))
    rows = np.rec.fromarrays(list(columns.values()), names=list(columns))
    np.save(tmp_path / "fields.npy", np.asarray(rows))
    np.save(tmp_path / "plain.npy", np.stack(list(columns.values()), axis=1))
    for path, time, inputs, outputs in (
        ("named.npz", "t", ["q"], ["u"]),
        ("named.npz", "t", ["v[0]"], ["v[1]"]),
        ("fields.npy", "t", ["q"], ["u"]),
        ("plain.npy", "0", ["1"], ["3"]),
    ):
        (recording,) = named = open_(tmp_path, path=path, inputs=inputs, outputs=outputs, time=time)
        np.testing.assert_array_equal(recording.x[:, 0] * 10, recording.y[:, 0])
        assert named.input_names == tuple(inputs)
        assert named.sample_rate_hz == pytest.approx(RATE)
    np.save(tmp_path / "deep.npy", np.zeros((2, 3, 4)))
    np.savez(tmp_path / "uneven.npz", q=np.zeros(3), u=np.zeros(4))
    for path, keys, match in (
        ("named.npz", {}, "no array 'x'; found .*expected x and y, or inputs and outputs"),
        ("deep.npy", QU, r"found shape \[2, 3, 4\], expected \[T, columns\]"),
        ("uneven.npz", QU, r"found columns of lengths {'q': 3, 'u': 4}, expected equal"),
    ):
        with pytest.raises(ConfigError, match=match):
            open_(tmp_path, path=path, **keys)


# --- LeRobot

STATE = ["shoulder.pos", "elbow.pos", "gripper.pos"]


def write_lerobot(folder: Path, lengths: tuple[int, ...] = (30, 20, 25), fps: int = 30, **info: Any) -> Path:
    """A dataset of version 3: the first two episodes in one data file, the rest in another."""
    frames = {
        "timestamp": "float32",
        "frame_index": "int64",
        "episode_index": "int64",
        "index": "int64",
        "task_index": "int64",
    }
    features = {
        "observation.state": {"dtype": "float32", "shape": [3], "names": STATE},
        "observation.effort": {"dtype": "float32", "shape": [2], "names": {"motors": ["shoulder", "elbow"]}},
        "observation.phase": {"dtype": "float32", "shape": [2], "names": ["dim"]},
        "action": {"dtype": "float32", "shape": [1], "names": ["gripper.pos"]},
        "observation.images.top": {"dtype": "video", "shape": [96, 96, 3], "names": ["height", "width", "channels"]},
        "observation.grid": {"dtype": "float32", "shape": [2, 2], "names": None},
    } | {name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in frames.items()}  # fmt: skip
    ends = np.cumsum(lengths)
    meta = {
        "codebase_version": "v3.0",
        "robot_type": "so101",
        "total_episodes": len(lengths),
        "total_frames": int(ends[-1]),
        "total_tasks": 1,
        "chunks_size": 1000,
        "fps": fps,
        "splits": {"train": f"0:{len(lengths)}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": features,
    } | info  # fmt: skip
    (folder / "meta/episodes/chunk-000").mkdir(parents=True)
    (folder / "data/chunk-000").mkdir(parents=True)
    (folder / "meta/info.json").write_text(json.dumps(meta))
    (folder / "meta/stats.json").write_text("{}")
    pyarrow.parquet.write_table(pa.table({"task_index": [0], "task": ["stack"]}), folder / "meta/tasks.parquet")
    rows = np.arange(ends[-1])
    episode = np.searchsorted(ends, rows, side="right")
    frame = rows - np.r_[0, ends][episode]

    def vector(width: int) -> pa.Array:
        return pa.FixedSizeListArray.from_arrays(
            pa.array((rows[:, None] + np.arange(width) / 10).ravel(), "float32"), width
        )

    table = pa.table(
        {
            "observation.state": vector(3),
            "observation.effort": vector(2).cast(pa.list_(pa.float32())),
            "observation.phase": vector(2),
            "action": pa.array(rows * 2, "float32"),
            "timestamp": pa.array(frame / 30, "float32"),
            "frame_index": frame,
            "episode_index": episode,
            "index": rows,
            "task_index": np.zeros_like(rows),
        }
    )
    for number, span in enumerate((slice(0, int(ends[1])), slice(int(ends[1]), int(ends[-1])))):
        part = table.slice(span.start, span.stop - span.start)
        pyarrow.parquet.write_table(part, folder / f"data/chunk-000/file-{number:03d}.parquet")
    episodes = {
        "episode_index": list(range(len(lengths))),
        "tasks": [["stack"]] * len(lengths),
        "length": list(lengths),
        "data/chunk_index": [0] * len(lengths),
        "data/file_index": [min(1, i // 2) for i in range(len(lengths))],
        "dataset_from_index": (ends - lengths).tolist(),
        "dataset_to_index": ends.tolist(),
        "stats/action/min": [[0.0]] * len(lengths),
    }
    pyarrow.parquet.write_table(pa.table(episodes), folder / "meta/episodes/chunk-000/file-000.parquet")
    return folder


def test_lerobot(tmp_path: Path) -> None:
    write_lerobot(tmp_path / "stack")
    inputs = ["observation.state", "observation.effort[elbow]", "observation.phase[1]", "observation.state[1]"]
    streams = open_(tmp_path, 30.0, path="stack", inputs=inputs[:3], outputs=["action"])
    assert streams.input_names == (
        "observation.state[shoulder.pos]",
        "observation.state[elbow.pos]",
        "observation.state[gripper.pos]",
        "observation.effort[elbow]",
        "observation.phase[1]",
    )
    assert streams.output_names == ("action[gripper.pos]",)
    assert [len(r) for r in streams] == [30, 20, 25]
    assert streams.sample_rate_hz == pytest.approx(30, rel=1e-5)
    first = 0
    for episode, recording in enumerate(streams):
        rows = np.arange(first, first + len(recording), dtype=np.float32)[:, None]
        np.testing.assert_allclose(recording.x, rows + np.float32([0, 0.1, 0.2, 0.1, 0.1]), rtol=1e-6)
        np.testing.assert_array_equal(recording.y, rows * 2)
        assert recording.source.endswith(f"episode_index {episode}")
        first += len(recording)
    files = {"stack/meta/info.json", "stack/meta/episodes/chunk-000/file-000.parquet"}
    assert streams.source["files"].keys() == files | {f"stack/data/chunk-000/file-00{i}.parquet" for i in range(2)}
    for wanted, match in (
        (["observation.images.top"], r"feature 'observation.images.top' is video \[96, 96, 3\], expected a vector"),
        (["observation.grid"], r"feature 'observation.grid' is float32 \[2, 2\]"),
        (["state"], "no column 'state'; found .*observation.images.top"),
        (["observation.state[wrist.pos]"], r"no column 'observation.state\[wrist.pos\]'; found observation.state\[sh"),
        (inputs, r"column 'observation.state\[elbow.pos\]' chosen twice"),
    ):
        with pytest.raises(ConfigError, match=match):
            open_(tmp_path, 30.0, path="stack", inputs=wanted, outputs=["action"])
    with pytest.raises(ConfigError, match=r"info.json: fps: found 30, expected 50 ± 1%"):
        open_(tmp_path, 50.0, path="stack", inputs=["action"], outputs=["action"])
    held = open_(tmp_path, 60.0, path="stack", inputs=["action"], outputs=["action"], resample=True, max_gap_s=0.1)
    assert [len(r) for r in held] == [59, 39, 49]
    assert (held.sample_rate_hz, held.recordings[0].x[:4, 0].tolist()) == (60.0, [0, 0, 2, 2])


@pytest.mark.parametrize(
    ("info", "match"),
    [
        ({"codebase_version": "v2.1"}, "codebase_version: found 'v2.1', expected v3.x"),
        ({"fps": 15}, r"expected 15 Hz ± 1%|found 30 Hz"),
        ({"data_path": "data/{chunk_index}/{file_index}.parquet"}, "0.parquet: no such data file, but meta/episodes"),
    ],
)
def test_lerobot_metadata_that_the_data_contradict(info: dict[str, Any], match: str, tmp_path: Path) -> None:
    write_lerobot(tmp_path / "stack", **info)
    with pytest.raises(ConfigError, match=match):
        open_(tmp_path, float(info.get("fps", 30)), path="stack", inputs=["action"], outputs=["action"])


@pytest.mark.parametrize(
    ("info", "match"),
    [
        (
            {"data_path": "data/{wat}.parquet"},
            r"info.json: data_path: found 'data/\{wat\}.parquet', expected \{chunk_in",
        ),
        ({"data_path": "data/{}.parquet"}, "info.json: data_path: found"),
        ({"data_path": 3}, "info.json: data_path: found 3"),
        ({"fps": 0}, "info.json: fps: found 0, expected a number > 0"),
        ({"features": []}, r"info.json: features: found \[\]"),
        ({"features": {"action": 3}}, "info.json: feature 'action': found 3"),
        ({"features": {"action": {"dtype": "float32", "shape": None}}}, "info.json: feature 'action': found"),
    ],
)
def test_lerobot_metadata_that_make_no_sense(info: dict[str, Any], match: str, tmp_path: Path) -> None:
    write_lerobot(tmp_path / "stack", **info)
    with pytest.raises(ConfigError, match=match):
        open_(tmp_path, rate_hz=None, path="stack", inputs=["action"], outputs=["action"])


def test_lerobot_episodes_without_a_number(tmp_path: Path) -> None:
    file = write_lerobot(tmp_path / "stack") / "data/chunk-000/file-000.parquet"
    table = pyarrow.parquet.read_table(file)
    numbers = [None if i == 4 else e for i, e in enumerate(table["episode_index"].to_pylist())]
    index = table.column_names.index("episode_index")
    pyarrow.parquet.write_table(table.set_column(index, "episode_index", pa.array(numbers, "int64")), file)
    with pytest.raises(ConfigError, match=r"file-000.parquet: column 'episode_index' holds nan at row 4"):
        open_(tmp_path, rate_hz=30, path="stack", inputs=["action"], outputs=["action"])


def test_lerobot_episodes_are_checked(tmp_path: Path) -> None:
    folder = write_lerobot(tmp_path / "stack")
    data = folder / "data/chunk-000/file-000.parquet"
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(data).slice(0, 45), data)
    with pytest.raises(ConfigError, match=r"found episodes \(length\) 0 \(30\), 1 \(15\), expected 0 \(30\), 1 \(20\)"):
        open_(tmp_path, 30.0, path="stack", inputs=["action"], outputs=["action"])
    (folder / "meta/info.json").write_text('{"codebase_version": "v3.0"}')
    with pytest.raises(ConfigError, match=r"info.json: no data_path, features, fps"):
        open_(tmp_path, 30.0, path="stack", inputs=["action"], outputs=["action"])


# --- rosbag2


def message(kind: str, **fields: Any) -> Any:
    return STORE.types[kind](**fields)


def header(stamp: int) -> Any:
    return message(
        "std_msgs/msg/Header",
        stamp=message("builtin_interfaces/msg/Time", sec=stamp // 10**9, nanosec=stamp % 10**9),
        frame_id="",
    )


def joints(stamp: int, **positions: float) -> tuple[str, Any]:
    values = np.array(list(positions.values()), np.float64)
    empty = np.zeros(0)
    return "/joint_states", message(
        "sensor_msgs/msg/JointState",
        header=header(stamp),
        name=list(positions),
        position=values,
        velocity=values / 10,
        effort=empty,
    )  # fmt: skip


def numbers(topic: str, *values: float) -> tuple[str, Any]:
    layout = message("std_msgs/msg/MultiArrayLayout", dim=[], data_offset=0)
    return topic, message("std_msgs/msg/Float64MultiArray", layout=layout, data=np.array(values, np.float64))


def imu(stamp: int, z: float) -> tuple[str, Any]:
    def vector(**xyz: float) -> Any:
        return message("geometry_msgs/msg/Vector3", **xyz)

    return "/imu", message(
        "sensor_msgs/msg/Imu",
        header=header(stamp),
        orientation=message("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
        orientation_covariance=np.zeros(9),
        angular_velocity=vector(x=0.0, y=0.0, z=z),
        angular_velocity_covariance=np.zeros(9),
        linear_acceleration=vector(x=0.0, y=0.0, z=9.81),
        linear_acceleration_covariance=np.zeros(9),
    )  # fmt: skip


def write_bag(folder: Path, messages: list[tuple[int, tuple[str, Any]]], plugin: StoragePlugin) -> Path:
    """A bag of (received at ns, (topic, message))."""
    folder.parent.mkdir(exist_ok=True)
    with Writer(folder, version=9, storage_plugin=plugin) as writer:
        connections = {}
        for stamp, (topic, msg) in sorted(messages, key=lambda item: item[0]):
            kind = msg.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=STORE)
            writer.write(connections[topic], stamp, STORE.serialize_cdr(msg, kind))
    return folder


MS = 1_000_000
START = 1_700_000_000 * 10**9


def motion(count: int = 40) -> list[tuple[int, tuple[str, Any]]]:
    """100 Hz: joints whose order changes, commands 2 ms later that answer them, an inertial unit 1 ms before."""
    messages = []
    for i in range(count):
        stamp = START + i * 10 * MS
        elbow, wrist = {"elbow": i + 0.25}, {"wrist": i + 0.5}
        messages += [
            (stamp - MS, imu(stamp, 100.0 + i)),
            (stamp, joints(stamp, **(elbow | wrist if i % 3 else wrist | elbow))),
            (stamp + 2 * MS, numbers("/commands", i * 1.0, i * 2.0)),
        ]  # fmt: skip
    return messages


FIELDS: dict[str, Any] = {
    "inputs": ["/joint_states:position[elbow]", "/joint_states:velocity", "/imu:angular_velocity.z"],
    "outputs": ["/commands:data"],
}


@pytest.mark.parametrize("plugin", list(StoragePlugin))
def test_damaged_rosbags_are_named(plugin: StoragePlugin, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", motion(10), plugin)
    (file,) = [path for path in bag.iterdir() if path.suffix != ".yaml"]
    whole = file.read_bytes()
    for seed in range(6):
        rng = np.random.default_rng(seed)
        damaged = bytearray(whole)
        for at in rng.integers(100, len(whole) - 100, 40):
            damaged[at] = rng.integers(128, 256)
        file.write_bytes(damaged)
        with suppress(ConfigError):  # damage can also be to a byte that nobody reads; no other error may come
            open_(tmp_path, path="bag", **FIELDS)
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match="bag"):
        open_(tmp_path, path="bag", **FIELDS)


@pytest.mark.parametrize("plugin", list(StoragePlugin))
def test_rosbags(plugin: StoragePlugin, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", motion(), plugin)
    (file,) = [path for path in bag.iterdir() if path.suffix != ".yaml"]
    for path in ("bag", f"bag/{file.name}"):
        (recording,) = streams = open_(tmp_path, path=path, **FIELDS)
        assert streams.input_names == (
            "/joint_states:position[elbow]",
            "/joint_states:velocity[wrist]",  # as in the first message
            "/joint_states:velocity[elbow]",
            "/imu:angular_velocity.z",
        )
        assert streams.output_names == ("/commands:data[0]", "/commands:data[1]")
        rows = np.arange(1, 40)[:, None]  # at the first joints there was no command yet
        expected = rows * [1, 0.1, 0.1, 1] + [0.25, 0.05, 0.025, 100]
        np.testing.assert_allclose(recording.x, expected, rtol=1e-6)
        np.testing.assert_array_equal(recording.y, (rows - 1) * [1, 2])  # the command that was in force, not its answer
        assert streams.sample_rate_hz == pytest.approx(100)
        assert f"bag/{file.name}" in streams.source["files"]
    (answered,) = open_(tmp_path, path="bag", **FIELDS, horizon=1)
    np.testing.assert_array_equal(answered.y[:, 0], np.arange(1, 39))


def test_rosbags_without_message_definitions(tmp_path: Path) -> None:
    """As recorded before ROS 2 Iron: the standard messages are known."""
    bag = write_bag(tmp_path / "bag", motion(), StoragePlugin.SQLITE3)
    before = open_(tmp_path, path="bag", **FIELDS)
    with closing(sqlite3.connect(bag / "bag.db3")) as database, database:
        database.execute("DELETE FROM message_definitions")
    after = open_(tmp_path, path="bag", **FIELDS)
    np.testing.assert_array_equal(before.recordings[0].x, after.recordings[0].x)
    assert before.source["files"]["bag/bag.db3"] != after.source["files"]["bag/bag.db3"]


def test_rosbag_topics_of_several_rates(tmp_path: Path) -> None:
    goals = [(START + 55 * MS, numbers("/goal", 7.0)), (START + 250 * MS, numbers("/goal", 8.0))]
    write_bag(tmp_path / "bags/a", motion() + goals, StoragePlugin.MCAP)
    keys: dict[str, Any] = {
        "inputs": ["/joint_states:position[wrist]", "/goal:data[0]"],
        "outputs": ["/commands:data[0]"],
    }
    with pytest.raises(ConfigError, match=r"bags/a, /goal: found 5.12821 Hz .*; or set resample = true"):
        open_(tmp_path, path="bags/*", **keys)
    (recording,) = open_(tmp_path, path="bags/*", **keys, resample=True, max_gap_s=0.2)
    ticks = 55 + 10 * np.arange(len(recording))  # ms; the last message came at 392 ms
    assert ticks[-1] == 385
    np.testing.assert_array_equal(recording.x[:, 0], ticks // 10 + 0.5)
    np.testing.assert_array_equal(recording.x[:, 1], np.where(ticks < 250, 7, 8))
    np.testing.assert_array_equal(recording.y[:, 0], (ticks - 2) // 10)
    first, second = open_(tmp_path, path="bags/*", **keys, resample=True, max_gap_s=0.1)
    assert (len(first), len(second)) == (11, 10)  # 55 … 155 ms, 255 … 345 ms: no goal is older than 100 ms


def test_rosbag_gaps(tmp_path: Path) -> None:
    messages = [(t, m) for t, m in motion() if m[0] != "/commands" or not 100 * MS <= t - START < 230 * MS]
    write_bag(tmp_path / "bag", messages, StoragePlugin.SQLITE3)
    write_bag(
        tmp_path / "died", [(t, m) for t, m in motion() if m[0] != "/imu" or t < START + 50 * MS], StoragePlugin.MCAP
    )
    with pytest.raises(ConfigError, match=r"died, /imu: nothing came for 0.341 s after row 5, expected at most 0.1 s"):
        open_(tmp_path, path="died", **FIELDS)
    (short,) = open_(tmp_path, path="died", **FIELDS, max_gap_s=0.1)
    np.testing.assert_array_equal(short.x[:, 3], np.minimum(100 + np.arange(1, 15), 105))
    with pytest.raises(
        ConfigError, match=r"bag, /commands: nothing came for 0.14 s after row 9, expected at most 0.1 s"
    ):
        open_(tmp_path, path="bag", **FIELDS)
    first, second = open_(tmp_path, path="bag", **FIELDS, max_gap_s=0.03)
    np.testing.assert_array_equal(first.x[:, 3], 100 + np.arange(1, 13))  # held for 28 ms after 92 ms
    np.testing.assert_array_equal(second.x[:, 3], 100 + np.arange(24, 40))


@pytest.mark.parametrize(
    ("field", "match"),
    [
        ("joint_states.position", "found 'joint_states.position', expected /topic:field"),
        ("/joints:position", "no messages on /joints; found /commands, /imu, /joint_states"),
        ("/imu:gyro", "/imu, message 0: /imu:gyro is not there: no 'gyro'; found header, orientation"),
        ("/imu:header", "/imu:header is a .*Header.*, expected a number; found stamp, frame_id"),
        ("/joint_states:position[knee]", r"position\[knee\] is not there; found 2 element\(s\) wrist, elbow"),
        ("/joint_states:effort[elbow]", r"effort\[elbow\] is not there; found 0 element"),
        ("/commands:data[2]", r"data\[2\] is not there; found 2 element"),
        ("/nan:data[0]", r"bag, /nan: column '/nan:data\[0\]' holds nan at row 0"),
        ("/growing:data", "/growing, message 1: /growing:data has 2 elements, expected 1 as in message 0"),
    ],
)
def test_what_is_wrong_in_a_bag_is_named(field: str, match: str, tmp_path: Path) -> None:
    extra = [(START, numbers("/growing", 1)), (START + 1, numbers("/growing", 1, 2)), (START, numbers("/nan", np.nan))]
    if "nan" not in field and "growing" not in field:
        extra = []
    write_bag(tmp_path / "bag", motion(3) + extra, StoragePlugin.MCAP)
    with pytest.raises(ConfigError, match=match):
        open_(tmp_path, path="bag", inputs=[field], outputs=["/commands:data[0]"])


# --- generated systems


def generate(system: str, rate_hz: float | None = None, **keys: Any) -> Streams:
    return open_(Path(), rate_hz, format="generated", system=system, **{"recordings": 4, "steps": 200, **keys})


def stacked(streams: Streams) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return np.stack([r.x for r in streams]), np.stack([r.y for r in streams])


@pytest.mark.parametrize(
    "system", ["lorenz", "mackey_glass", "pendulum", "teleoperation", "narma10", "selective_recall", "delay_copy"]
)
def test_generated_systems_repeat_by_seed(system: str) -> None:
    first, again, other = generate(system), generate(system), generate(system, seed=1)
    (x, y), (x2, y2), (x3, _) = stacked(first), stacked(again), stacked(other)
    assert x.shape == (4, 200, len(first.input_names or ()))
    assert y.shape == (4, 200, len(first.output_names or ()))
    assert np.array_equal(x, x2)
    assert np.array_equal(y, y2)
    assert not np.array_equal(x, x3)
    assert len({r.x.tobytes() for r in first}) == 4
    assert first.source["seed"] == 0
    json.dumps(first.source)


@pytest.mark.parametrize(("system", "low", "high"), [("lorenz", 7.5, 8.3), ("mackey_glass", 0.19, 0.27)])
def test_chaotic_systems_are_one_step_ahead_and_on_their_attractor(system: str, low: float, high: float) -> None:
    x, y = stacked(generate(system, noise=0.0, steps=2000))
    assert np.array_equal(x[:, 1:], y[:, :-1])
    assert low < y[..., 0].std() < high  # the published attractors: 7.9 and 0.23
    noisy, clean = stacked(generate(system, noise=0.05, steps=2000))
    assert np.array_equal(clean, y)
    error = (noisy - x).std(axis=(0, 1)) / x.std(axis=(0, 1))
    np.testing.assert_allclose(error, 0.05, rtol=0.05)


def test_the_hand_of_teleoperation_moves_as_documented() -> None:
    streams = generate("teleoperation", 200.0, noise=0.0, steps=2000)
    for recording in streams:
        path = np.concatenate([recording.x[:1, 2:], recording.y]).astype(np.float64)  # [T + 1, 2]
        velocity = np.diff(path, axis=0) * 200
        acceleration = np.diff(velocity, axis=0) * 200
        assert np.abs(velocity).max() == pytest.approx(3.0, rel=1e-3)
        assert np.abs(acceleration).max() == pytest.approx(25.0, rel=2e-2)
        assert np.abs(path).max() < 1.05
        held = recording.x[:, :2]
        assert 6 < np.count_nonzero(np.abs(np.diff(held, axis=0)).max(1)) < 22  # ten seconds of targets


def test_the_pendulum_obeys_its_equation_at_any_rate() -> None:
    for rate in (None, 200.0):
        streams = generate("pendulum", rate, noise=0.0, steps=1000)
        assert streams.sample_rate_hz == (rate or 100.0)
        x, y = stacked(streams)
        torque, angle, velocity = (v.astype(np.float64) for v in (x[:, 1:, 1], y[:, :, 0], y[:, :, 1]))
        dt = 1 / streams.sample_rate_hz
        middle = [(v[:, 1:] + v[:, :-1]) / 2 for v in (angle, velocity)]
        acceleration = np.diff(velocity, axis=1) / dt
        np.testing.assert_allclose(np.diff(angle, axis=1) / dt, middle[1], atol=0.02)
        np.testing.assert_allclose(acceleration, torque - 9.81 * np.sin(middle[0]) - middle[1], atol=0.02)
        assert angle.std() > 0.3
        assert np.abs(angle).max() < np.pi


def test_narma10_follows_its_recurrence() -> None:
    x, y = (v[..., 0].astype(np.float64) for v in stacked(generate("narma10", steps=300)))
    for t in range(10, 300):
        past = y[:, t - 10 : t]
        expected = 0.3 * past[:, -1] + 0.05 * past[:, -1] * past.sum(1) + 1.5 * x[:, t - 9] * x[:, t] + 0.1
        np.testing.assert_allclose(y[:, t], np.minimum(expected, 1), atol=1e-6)


@pytest.mark.parametrize("lag", [1, 30])
def test_memory_tasks(lag: int) -> None:
    asked = 0
    for recording in generate("selective_recall", lag=lag, steps=8 * lag + 50):
        assert recording.weight is not None
        value, flag, query = recording.x.T
        flags, queries = np.flatnonzero(flag), np.flatnonzero(query)
        assert len(queries) >= 1
        asked += len(queries)
        np.testing.assert_array_equal(np.flatnonzero(recording.weight), queries)
        for at in queries:
            last = flags[flags < at].max()
            assert lag <= at - last <= 2 * lag
            assert recording.y[at, 0] == value[last]
    assert asked > 4
    for recording in generate("delay_copy", lag=lag):
        assert recording.weight is not None
        np.testing.assert_array_equal(recording.y[lag:], recording.x[:-lag])
        np.testing.assert_array_equal(recording.weight, np.arange(200) >= lag)


# --- the documented sections


def test_every_documented_section_opens_what_it_describes(tmp_path: Path) -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```", (ROOT / "docs/datasets.md").read_text(), re.S | re.M)
    np.savez(tmp_path / "recording.npz", x=np.zeros((300, 4)), y=np.zeros((300, 2)))
    for name in ("monday", "tuesday"):
        columns = drive(300) | {"run": np.arange(300) // 150, "stamp_ns": np.arange(300) * 10 * MS}
        write_csv(tmp_path / f"drives/{name}.csv", **columns)
        pyarrow.parquet.write_table(pa.table(columns), tmp_path / f"drives/{name}.parquet")
        goal = [(START + 3 * MS, numbers("/goal", 7.0))]
        write_bag(tmp_path / f"bags/{name}", motion(300) + goal, StoragePlugin.MCAP)
    write_lerobot(tmp_path / "stack_cubes")
    formats = set()
    for block in blocks:
        section = validate(tomllib.loads(block)["data"], DataSection, "docs/datasets.md", ConfigError)
        rate = 30.0 if section.path == "stack_cubes" else RATE
        streams = open_streams(section, base=tmp_path, rate_hz=rate, where="docs/datasets.md")
        assert len(streams.windows(section.window, section.stride)) >= 1
        formats.add(streams.source["format"])
    assert formats == {"numpy", "csv", "parquet", "lerobot", "rosbag", "generated"}
