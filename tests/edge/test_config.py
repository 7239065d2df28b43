"""robot.toml: what it may say, and how it is told what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from kizzasi_edge.config import default_socket, load_config
from kizzasi_edge.errors import ConfigError

GOOD = """schema = 1
[robot]
name = "arm-1"
[model]
path = "arm.onnx"
[guard]
path = "arm.guard.toml"
[loop]
rate_hz = 500
[[input]]
connector = "waypoints"
path = "t.csv"
stale_ms = 50
[input.fields]
"pan/target_position" = "pan"
[[output]]
connector = "serial"
port = "/dev/ttyACM0"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "arm.onnx").touch()
    (tmp_path / "arm.guard.toml").touch()
    return tmp_path


def write(folder: Path, text: str) -> Path:
    (folder / "robot.toml").write_text(text)
    return folder / "robot.toml"


def test_a_good_file(folder: Path) -> None:
    config = load_config(write(folder, GOOD))
    file = config.file
    assert (file.loop.rate_hz, file.loop.pace, file.loop.realtime) == (500, "clock", False)
    assert file.input[0].stale_ms == 50
    assert file.input[0].options == {"path": "t.csv"}
    assert file.input[0].fields == {"pan/target_position": "pan"}
    assert file.output[0].options == {"port": "/dev/ttyACM0"}
    assert config.resolve("arm.onnx") == (folder / "arm.onnx").resolve()
    assert config.resolve("/dev/null") == Path("/dev/null")


def test_the_control_socket(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    config = load_config(write(folder, GOOD))
    assert config.socket == default_socket("arm-1") == folder / "kizzasi-arm-1.sock"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert default_socket("x") == Path("/run/kizzasi-x.sock")
    declared = load_config(write(folder, GOOD + '[control]\nsocket = "c.sock"\n'))
    assert declared.socket == folder.resolve() / "c.sock"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("schema = 1", "schema = 3", ["schema", "found 3", "expected 1"]),
        ("rate_hz = 500", "rate_hz = 500\nspeed = 1", ["[loop] speed", "unknown key", "rate_hz"]),
        ("rate_hz = 500", "rate_hz = 0", ["[loop] rate_hz", "found 0", "greater than 0"]),
        ("rate_hz = 500", 'rate_hz = "500"', ["[loop] rate_hz", "found '500'", "number"]),
        ("rate_hz = 500", 'rate_hz = 500\npace = "slow"', ["[loop] pace", "'slow'", "'device'"]),
        ("rate_hz = 500", "", ["[loop] rate_hz", "missing"]),
        ('name = "arm-1"', 'name = "arm 1/.."', ["[robot] name", "'arm 1/..'"]),
        ('path = "arm.onnx"', 'path = "gone.onnx"', ["[model] path", "'gone.onnx'", "no such file"]),
        ('path = "arm.guard.toml"', 'path = "gone.toml"', ["[guard] path", "'gone.toml'", "no such file"]),
        ('path = "arm.onnx"', 'path = "arm.onnx"\nengine = "tpu"', ["[model] engine", "'tpu'"]),
        ('connector = "waypoints"\n', "", ["[[input]] 1 connector", "missing"]),
        ("stale_ms = 50", "stale_ms = -1", ["[[input]] 1 stale_ms", "found -1"]),
        ('"pan/target_position" = "pan"', '"pan/target_position" = 3', ["[[input]] 1", "pan/target_position", "3"]),
        ("[robot]", '[telemetry]\npath = "x"\n[robot]', ["telemetry", "unknown key", "record"]),
        ("[robot]", "[record]\npath = 'x.npz'\nseconds = 0\n[robot]", ["[record] seconds", "found 0"]),
        ("[robot]", "[record]\npath = 'gone/x.npz'\n[robot]", ["[record]", "gone", "does not exist"]),
        ("[robot]", "[control]\nsocket = 'gone/x.sock'\n[robot]", ["[control]", "gone", "does not exist"]),
        ("[loop]", "[loop", ["not valid TOML", "line 8"]),
    ],
)
def test_refusals_name_file_section_key_found_and_expected(folder: Path, old: str, new: str, words: list[str]) -> None:
    path = write(folder, GOOD.replace(old, new, 1))
    with pytest.raises(ConfigError) as error:
        load_config(path)
    for word in [str(path), *words]:
        assert word in str(error.value)


def test_no_input_at_all(folder: Path) -> None:
    with pytest.raises(ConfigError, match="input"):
        load_config(write(folder, GOOD[: GOOD.index("[[input]]")] + "input = []\n"))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"robot\.toml: no such file"):
        load_config(tmp_path / "robot.toml")
