"""Keys, tables, numpy files and time, against what was written; windows; the documented sections."""

from __future__ import annotations

import importlib
import json
import re
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import (
    MS,
    NAB,
    QU,
    RATE,
    ROOT,
    START,
    drive,
    motion,
    numbers,
    open_,
    write_bag,
    write_csv,
    write_lerobot,
)
from rosbags.rosbag2 import StoragePlugin

import kizzasi_export
from kizzasi_edge.errors import ConfigError
from kizzasi_edge.toml_file import validate
from kizzasi_export.datasets import DataSection, SequenceDataset, load_npz, open_streams
from kizzasi_export.datasets.clock import Clock, Track


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


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"x": (1, 3, 0)}, r"x holds 1 non-finite value\(s\).*sequence 1, row 3, column 0: nan"),
        ({"y": (0, 2, 0)}, "y holds 1 non-finite.*sequence 0, row 2, column 0"),
    ],
)
def test_nan_is_named(change: dict[str, tuple[int, ...]], match: str) -> None:
    arrays = {"x": np.zeros((2, 5, 3)), "y": np.zeros((2, 5, 1))}
    for name, where in change.items():
        arrays[name][where] = np.nan
    with pytest.raises(ConfigError, match=match):
        SequenceDataset(**arrays)


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"x": np.zeros((2, 5)), "y": np.zeros((2, 5, 1))}, r"x is \[2, 5\], expected \[N, T, channels\]"),
        ({"x": np.zeros((2, 5, 3)), "y": np.zeros((2, 4, 1))}, r"y is \[2, 4, 1\]"),
        ({"x": np.zeros((0, 5, 3)), "y": np.zeros((0, 5, 1))}, "no empty axis"),
        ({"x": np.array([[["a"]]]), "y": np.zeros((1, 1, 1))}, "expected numbers"),
        ({"x": np.full((1, 2, 1), 1e300), "y": np.zeros((1, 2, 1))}, "non-finite value.*1e"),
        ({"x": np.zeros((1, 2, 1)), "y": np.zeros((1, 2, 1)), "weight": np.zeros((1, 2))}, "weight must be"),
    ],
)
def test_bad_shapes_are_named(arrays: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        SequenceDataset(**arrays)


def test_npz_files(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    with pytest.raises(ConfigError, match="no such data file"):
        load_npz(path)
    path.write_bytes(b"not a zip")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_npz(path)
    np.savez(path, x=np.zeros((7, 2)))
    with pytest.raises(ConfigError, match="no array 'y'"):
        load_npz(path)
    np.savez(path, x=np.arange(14.0).reshape(7, 2), y=np.zeros((7, 1)))
    data = load_npz(path, window=3)
    assert data.x.shape == (2, 3, 2)
    assert data.x[1, 0, 0] == 6
    with pytest.raises(ConfigError, match="at least window = 8"):
        load_npz(path, window=8)
