"""board.toml → Schema → C header → what a compiler makes of it → the wire → Schema."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import sys
import tomllib
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from kizzasi_bridge import LinkError
from kizzasi_bridge.board import PosixBoard
from kizzasi_bridge.board_file import RAW_MAX, load_board, parse_board
from kizzasi_bridge.cli import app
from kizzasi_bridge.errors import ConfigError
from kizzasi_bridge.link import Link
from kizzasi_bridge.schema import CHANNEL_TYPES, Channel, Schema, Sensor
from kizzasi_bridge.schema_header import schema_header

ROOT = Path(__file__).parents[2]
ARM = """
schema = 1
[board]
name = "arm"
tick_us = 500
[[channel]]
name = "shoulder/position"
counts_per_turn = 4096
gear = 50
sign = -1
zero = 120034
[[channel]]
name = "rail/velocity"
type = "velocity"
counts_per_meter = 200_000
[[channel]]
name = "wrist/effort"
type = "torque"
quantum = "2^-10"
[[sensor]]
name = "supply"
unit = "V"
quantum = 0.01
[[sensor]]
name = "wrist/angle"
channel = "wrist/effort"
counts_per_turn = 16384
zero = -5
[[sensor]]
name = "rail/encoder"
channel = "rail/velocity"
"""
SCHEMA = Schema(
    "arm",
    500,
    (
        Channel("shoulder/position", "rad", 120034, -math.tau / (4096 * 50)),
        Channel("rail/velocity", "m", 0, 5e-6, "velocity"),
        Channel("wrist/effort", "N·m", 0, 2.0**-10, "torque"),
    ),
    (
        Sensor("shoulder/position", "rad", 120034, -math.tau / (4096 * 50), 0),
        Sensor("rail/encoder", "m", 0, 5e-6, 1),
        Sensor("wrist/angle", "rad", -5, math.tau / 16384, 2),
        Sensor("supply", "V", 0, 0.01),
    ),
)
names = st.from_regex(r"[A-Za-z0-9_.+-]{1,20}", fullmatch=True)
sizes = st.floats(1e-15, 1e15)
zeros = st.integers(-RAW_MAX, RAW_MAX)
signs = st.sampled_from((1, -1))


def run(*arguments: object) -> str:
    """Output of a command that succeeds; its error otherwise."""
    done = CliRunner(env={"COLUMNS": "150"}).invoke(app, [str(a) for a in arguments])
    if done.exception is not None:
        raise done.exception
    return done.output


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "board.toml"
    path.write_text(ARM)
    return path


def test_the_measuring_sensors_come_first_and_count_as_their_channels(file: Path):
    board = load_board(file)
    assert board.schema == SCHEMA
    assert board.sources == (("channel", 0), ("channel", 1), ("sensor", 1), ("sensor", 0))


def toml_of(schema: Schema) -> str:
    """A file that says ``schema``, every scale as a quantum."""

    def row(kind: str, item: Channel | Sensor, counts: bool = True, **more: str) -> str:
        lines = {"name": item.name, **more}
        text = f"[[{kind}]]\n" + "".join(f'{key} = "{value}"\n' for key, value in lines.items())
        if not counts:
            return text
        sign = math.copysign(1, item.scale)
        return text + f'unit = "{item.unit}"\nquantum = {abs(item.scale)!r}\nsign = {sign:.0f}\nzero = {item.zero}\n'

    rows = [row("channel", channel, type=channel.type) for channel in schema.channels]
    for sensor in schema.sensors:
        if sensor.channel is None:
            rows.append(row("sensor", sensor))
        else:
            channel = schema.channels[sensor.channel]
            rows.append(row("sensor", sensor, channel.type == "torque", channel=channel.name))
    return f'schema = 1\n[board]\nname = "{schema.board}"\ntick_us = {schema.tick_us}\n' + "".join(rows)


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    channels, sensors = [], []
    for index, joint in enumerate(draw(st.lists(names, min_size=1, max_size=16, unique=True))):
        kind = draw(st.sampled_from(CHANNEL_TYPES))
        zero, scale = draw(zeros), draw(signs) * draw(sizes)
        own = draw(zeros), draw(signs) * draw(sizes)
        unit = draw(st.sampled_from(("rad", "m")))
        if kind == "torque":
            channels.append(Channel(f"{joint}/effort", draw(st.sampled_from(("N·m", "N"))), 0, scale, kind))
            sensors.append(Sensor(f"s{index}", unit, *own, index))
        else:
            channels.append(Channel(f"{joint}/{kind}", unit, zero, scale, kind))
            sensors.append(Sensor(f"s{index}", unit, zero, scale, index))
    for index in range(draw(st.integers(0, 3))):
        unit = draw(st.from_regex(r"[^\s*?\\\"\x00-\x1f\x7f]{1,16}", fullmatch=True))
        sensors.append(Sensor(f"more{index}", unit, draw(zeros), draw(signs) * draw(sizes)))
    return Schema(draw(names), draw(st.integers(10, 1_000_000)), tuple(channels), tuple(sensors))


@settings(max_examples=40)
@given(schemas())
def test_any_table_can_be_written_as_a_file(schema: Schema):
    assert parse_board(tomllib.loads(toml_of(schema)), "board.toml").schema == schema


@settings(max_examples=40)
@given(schemas())
def test_the_header_holds_the_bytes_and_the_table(schema: Schema):
    text = schema_header(schema, "board.toml")
    assert Schema.from_bytes(bytes_in(text, "schema")) == schema
    assert [CHANNEL_TYPES[mode] for mode in bytes_in(text, "schema_modes")] == [c.type for c in schema.channels]
    assert text.count("*/") == 2, "nothing in the table ends the comment"
    assert text == schema_header(Schema.from_bytes(schema.to_bytes()), "board.toml")
    for item in (*schema.channels, *schema.sensors):
        assert re.search(
            rf"{re.escape(item.name)} +zero +{item.zero}  scale {re.escape(repr(item.scale))} {re.escape(item.unit)}\n",
            text,
        )


@settings(max_examples=20)
@given(st.floats(1, 1e6), st.floats(0.01, 1000), signs, st.integers(-(10**6), 10**6), st.floats(-3, 3))
def test_counts_of_an_encoder_become_the_angle_of_its_joint(counts, gear, sign, zero, turns):  # type: ignore[no-untyped-def]
    for key, unit, one in (("counts_per_turn", "rad", math.tau), ("counts_per_meter", "m", 1.0)):
        row = {"name": "a/position", key: counts, "gear": gear, "sign": sign, "zero": zero}
        data = {"schema": 1, "board": {"name": "b", "tick_us": 1000}, "channel": [row]}
        channel = parse_board(data, "b").schema.channels[0]
        raw = zero + sign * turns * gear * counts
        assert (raw - channel.zero) * channel.scale == pytest.approx(turns * one, rel=1e-6, abs=1e-6)
        assert channel.unit == unit


def bytes_in(header: str, name: str) -> bytes:
    found = re.search(rf"uint8_t {name}\[\w+\] = \{{([^}}]*)\}}", header)
    assert found
    return bytes(int(number) for number in found[1].split(","))


@pytest.mark.parametrize("compiler", ["cc -std=c99", "c++ -std=c++11 -xc++", "clang -std=c99", "avr-gcc -std=c99"])
def test_a_compiler_takes_the_header_and_keeps_the_bytes(compiler: str, file: Path, tmp_path: Path):
    if not shutil.which(compiler.split()[0]):
        pytest.skip(f"{compiler.split()[0]} is not installed")
    assert "hash" in run("schema", file, "-o", tmp_path / "schema.h")
    strict = [*compiler.split(), "-Wall", "-Wextra", "-Werror", "-pedantic"]
    (tmp_path / "bare.c").write_text(
        '#include "schema.h"\n#include "schema.h"\n'
        "typedef char fits[SCHEMA_CHANNELS == 3 && SCHEMA_SENSORS == 4 && SCHEMA_TICK_US == 500 ? 1 : -1];\n"
        "extern fits whole; extern const uint8_t *table;\nconst uint8_t *table = schema; fits whole;\n"
    )
    done = subprocess.run([*strict, "-c", "bare.c", "-o", "bare.o"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if compiler.startswith("avr"):
        return
    (tmp_path / "print.c").write_text(
        '#include <stdio.h>\n#include "schema.h"\nint main(void) {\n'
        "  fwrite(schema, 1, sizeof schema, stdout);\n  fwrite(schema_modes, 1, sizeof schema_modes, stdout);\n"
        "  return 0;\n}\n"
    )
    subprocess.run([*strict, "print.c", "-o", "print"], cwd=tmp_path, check=True)
    assert subprocess.run([tmp_path / "print"], capture_output=True, check=True).stdout == SCHEMA.to_bytes() + bytes(
        (0, 1, 2)
    )


def test_the_nodes_mode_codes_are_the_headers():
    codes = (ROOT / "firmware_bridge/c/kz_codes.h").read_text()
    for code, name in enumerate(CHANNEL_TYPES):
        assert f"KZ_MODE_{name.upper()} = {code}" in codes


def test_from_the_file_over_the_wire_and_back(file: Path, tmp_path: Path):
    run("schema", file, "-o", tmp_path / "schema.h")
    flashed = Schema.from_bytes(bytes_in((tmp_path / "schema.h").read_text(), "schema"))
    with PosixBoard(flashed) as board:
        with Link(board.port) as link:
            assert link.schema == SCHEMA
            assert link.hello.schema_hash == zlib.crc32(bytes_in((tmp_path / "schema.h").read_text(), "schema"))
        assert f"hash {zlib.crc32(SCHEMA.to_bytes()):#010x}" in run("schema", file, "--check", board.port)
        file.write_text(ARM.replace("zero = 120034", "zero = 120035").replace('"2^-10"', "0.002"))
        with pytest.raises(LinkError) as error:
            run("schema", file, "--check", board.port)
    lines = str(error.value).splitlines()
    assert f"{zlib.crc32(SCHEMA.to_bytes()):#010x}" in lines[0]
    assert [line.strip() for line in lines[1:]] == [
        "channel 'shoulder/position': zero 120035, not 120034",
        "channel 'wrist/effort': scale 0.002, not 0.0009765625",
        "sensor 'shoulder/position': zero 120035, not 120034",
    ]


def test_the_same_table_packed_by_another_zlib_is_no_difference(file: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        packed = zlib.compress
        patch.setattr(zlib, "compress", lambda data, level: packed(data, 1))
        board = PosixBoard(SCHEMA)
    with board:
        shown = run("schema", file, "--check", board.port)
    assert "the board carries" in shown
    assert "another zlib" in shown


def test_the_table_is_shown_with_every_digit(file: Path):
    shown = run("schema", file)
    for text in (
        "arm, tick 500 µs",
        repr(-math.tau / (4096 * 50)),
        "120034",
        "of channel 2",
        "torque",
        "N·m",
        "supply",
    ):
        assert text in shown


BAD = [
    ("tick_us = 500", "tick_us = 5", "[board] tick_us: found 5; expected"),
    ("tick_us = 500", "tick_us = 500\ntik = 1", "[board] tik: unknown key (found 1); expected one of ['name', 'tick"),
    ("gear = 50", "gears = 50", "[[channel]] 1 gears: unknown key (found 50); expected one of ["),
    ("gear = 50", "gear = 0", "[[channel]] 1 gear: found 0; expected"),
    ("gear = 50", "gear = nan", "[[channel]] 1 gear: found nan; expected a finite number"),
    ("sign = -1", "sign = 2", "[[channel]] 1 sign: found 2; expected 1 or -1"),
    ("zero = 120034", "zero = 1073741824", "[[channel]] 1 zero: found 1073741824; expected less than or equal"),
    ("zero = 120034", "zero = 1.5", "[[channel]] 1 zero: found 1.5; expected a valid integer"),
    ("counts_per_turn = 4096", "", "[[channel]] 1 quantum: found none; expected one of counts_per_turn, counts"),
    ("gear = 50", "quantum = 1", "[[channel]] 1 quantum: found counts_per_turn and quantum; expected one of"),
    ("counts_per_turn = 4096", "quantum = 1", "[[channel]] 1 gear: found 50.0; expected none beside quantum"),
    ("gear = 50", 'unit = "m"', "[[channel]] 1 unit: found 'm'; expected 'rad' with counts_per_turn"),
    ("gear = 50", 'unit = "deg"', "[[channel]] 1 unit: found 'deg'; expected 'rad' or 'm'"),
    ('"2^-10"', '"2^x"', "[[channel]] 3 quantum: found '2^x'; expected a number, or a power of two written as"),
    ('"2^-10"', '"2^-99"', "[[channel]] 3 quantum: found 1.5777218104420236e-30; expected greater than"),
    ('"2^-10"', "0.1\nzero = 3", "[[channel]] 3 zero: found 3; expected 0"),
    ('quantum = "2^-10"', "counts_per_turn = 3", "[[channel]] 3 counts_per_turn: found 3.0; expected quantum, in N·m"),
    ('type = "velocity"', "", "[[channel]] 2 type: found 'position' for 'rail/velocity'; expected 'velocity'"),
    ('type = "velocity"', 'type = "speed"', "[[channel]] 2 type: found 'speed'; expected 'position', 'velocity' or"),
    ('"shoulder/position"', '"shoulder"', "[[channel]] 1 name: found 'shoulder'; expected the joint's name and"),
    ('"shoulder/position"', '"should*/r/position"', "[[channel]] 1 name: found 'should*/r/position'; expected"),
    ('"rail/velocity"\ntype = "velocity"', '"shoulder/position"', "[[channel]] name: found 'shoulder/position' 2"),
    ('"supply"', '"rail/encoder"', "[[sensor]] name: found 'rail/encoder' 2 times; expected it once"),
    ('"supply"', '"shoulder/position"', "name: found 'shoulder/position' 2 times, 1 of them implied by channels"),
    ('unit = "V"', "", "[[sensor]] 1 unit: missing; expected one beside quantum"),
    ('unit = "V"', 'unit = "*/"', "[[sensor]] 1 unit: found '*/'; expected"),
    ('channel = "rail/velocity"', 'channel = "rail"', "[[sensor]] 3 channel: found 'rail'; expected one of ['shoulder"),
    ('channel = "rail/velocity"', 'channel = "wrist/effort"', "channel: found 'wrist/effort' in 2 sensors; expected"),
    ('channel = "rail/velocity"', 'channel = "rail/velocity"\nzero = 4', "zero: found 4; expected nothing: it counts"),
    ('channel = "wrist/effort"', "", "[[sensor]] channel: found none that measures the torque channel 'wrist/effort'"),
    ("schema = 1", "schema = 2", "schema: found 2; expected 1"),
    ("schema = 1", "schema = ", "not valid TOML"),
    ("[[channel]]", "[[chanel]]", "chanel: unknown key"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "words"), BAD)
def test_a_bad_file_is_refused_in_words(old: str, new: str, words: str, file: Path):
    assert old in ARM
    file.write_text(ARM.replace(old, new) if old == "[[channel]]" else ARM.replace(old, new, 1))
    with pytest.raises(ConfigError) as error:
        load_board(file)
    assert words in str(error.value)
    assert all(line.startswith((f"{file}: ", "…")) for line in str(error.value).splitlines())


def test_no_file_no_folder(tmp_path: Path, file: Path):
    with pytest.raises(ConfigError, match="no such file"):
        run("schema", tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=r"schema\.h: cannot be written: No such file or directory"):
        run("schema", file, "-o", tmp_path / "none" / "schema.h")


@pytest.mark.parametrize(
    "board", sorted((ROOT / "firmware_bridge/boards").rglob("board.toml")), ids=lambda p: p.parent.name
)
def test_the_boards_of_this_project_have_files_that_hold(board: Path):
    assert load_board(board).schema.channels


def test_reading_a_file_needs_no_extra(file: Path):
    code = "import sys\nfrom kizzasi_bridge.cli import app\nfrom kizzasi_bridge.board_file import load_board\n"
    code += f"load_board({str(file)!r})\n"
    code += "assert not {'serial', 'tomlkit', 'onnxruntime'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
