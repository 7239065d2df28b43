"""LeRobotDataset folders: what is read, and what is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from recordings import open_, write_lerobot

from kizzasi_edge.errors import ConfigError


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
