"""kizzasi-bridge calibrate, by a technician's hands: encoders that nobody knows, on the real firmware process."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from encoders import Encoder, EncoderPlant, Line, Technician, by_hand, rotary
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from kizzasi_bridge import LinkError
from kizzasi_bridge.board import PosixBoard
from kizzasi_bridge.board_edit import edited
from kizzasi_bridge.board_file import Counting, load_board
from kizzasi_bridge.calibrate import Pose, fit, read_count
from kizzasi_bridge.cli import app
from kizzasi_bridge.errors import CalibrationError, ConfigError
from kizzasi_bridge.link import Link
from kizzasi_bridge.protocol import ChannelLimits, Limits

FILE = """\
# The arm at the window.
schema = 1
[board]
name = "arm"
tick_us = 1000

[[channel]]
name = "shoulder/position"   # upper arm
counts_per_turn = 4096       # data sheet
gear = 50

# Ordered in May.
[[channel]]
name = "elbow/position"
counts_per_turn = 1024
sign = 1                     # guessed
zero = 17

[[channel]]
name = "rail/velocity"
type = "velocity"
quantum = "2^-17"            # of the belt
unit = "m"

[[channel]]
name = "wrist/effort"
type = "torque"
quantum = 0.01

[[sensor]]
name = "wrist/position"
channel = "wrist/effort"
counts_per_turn = 8192
# end
"""
ELBOW_GEAR = 98.7
PLACES = (0.3, -1.1, 0.25, 2.0)
LIMITS = Limits((ChannelLimits(-(2**29), 2**29, 4000, 100),) * 4, 10_000, 3, 200, 60_000)


def encoders() -> list[Encoder]:
    return [
        rotary(4096, 50, offset=-812_345, sign=-1, noise=3),
        rotary(1024, ELBOW_GEAR, offset=55_000, sign=-1, noise=2),
        Encoder(-(2**17), offset=1234),
        rotary(8192, 1, offset=-77, noise=1),
    ]


class Bench:
    """A board with the file's table, the plant behind it, and the file."""

    def __init__(self, folder: Path, running: ExitStack) -> None:
        self.file = folder / "board.toml"
        self.file.write_text(FILE)
        self.plant = running.enter_context(EncoderPlant(folder / "plant", encoders(), 4))
        self.board = running.enter_context(
            PosixBoard(load_board(self.file).schema, plant=folder / "plant", directory=folder, fast=True)
        )
        self.port = self.board.port

    def calibrate(self, *arguments: str, said: Iterable[Line] = (), technician: type[Technician] = Technician) -> str:
        """Output of the command; its error if it fails."""
        words = ["calibrate", str(self.port), str(self.file), *arguments]
        return by_hand(words, technician(self.plant, *said))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with ExitStack() as running:
        yield Bench(tmp_path, running)


def reads(bench: Bench, folder: Path, places: tuple[float, ...]) -> list[float]:
    """What a board says in SI that was flashed with the file as it is now, its joints at ``places``."""
    folder.mkdir()
    joints = [replace(encoder, at=place) for encoder, place in zip(encoders(), places, strict=True)]
    with (
        EncoderPlant(folder / "plant", joints, 4) as plant,
        PosixBoard(load_board(bench.file).schema, plant=folder / "plant", directory=folder, fast=True) as board,
        Link(board.port) as link,
    ):
        plant.settle()
        state = link.wait_state(0, 5)
        assert state is not None
        return link.sensors.to_si(state.sensors).tolist()


def test_unknown_encoders_read_true_afterwards(bench: Bench, tmp_path: Path):
    wrong = reads(bench, tmp_path / "before", PLACES)
    assert all(abs(found - place) > 0.05 for found, place in zip(wrong, PLACES, strict=True))
    shown = bench.calibrate(
        said=(
            (0, 0.0, "0"),
            (0, math.pi / 2, "90deg"),
            "",
            (1, -0.5, "-0.5"),
            (1, 1.0, "1"),
            "",
            "y",  # the gear, from the poses
            (2, 0.1, "100 mm"),
            (2, -0.2, "-0.2"),
            "",
            (3, 0.0, "0°"),
            "",
        )
    )
    assert re.search(r"gear is 1 in the file, 98\.[67]\d* by the poses\. Take it from them\?", shown)
    found = reads(bench, tmp_path / "after", PLACES)
    assert found == pytest.approx(list(PLACES), abs=2e-3)
    text = bench.file.read_text()
    rows = load_board(bench.file).sections
    assert (rows.channel[0].sign, rows.channel[0].gear, rows.channel[0].zero) == (
        -1,
        50,
        pytest.approx(-812_345, abs=2),
    )
    assert (rows.channel[1].sign, rows.channel[1].gear) == (-1, pytest.approx(ELBOW_GEAR, rel=1e-3))
    assert (rows.channel[2].sign, rows.channel[2].quantum, rows.channel[2].zero) == (-1, 2**-17, 1234)
    assert rows.sensor[0].zero == pytest.approx(-77, abs=1)
    for comment in re.findall("#.*", FILE):
        assert comment in text
    kept = [line for line in text.splitlines() if not re.match("(zero|sign|gear) =", line)]
    assert kept == [line for line in FILE.splitlines() if not re.match("(zero|sign|gear) =", line)]
    for step in ("schema board.toml -o schema.h", f"schema board.toml --check {bench.port}", "limits of the old hash"):
        assert step in shown


def test_a_script_takes_the_poses_by_its_options(bench: Bench):
    shown = bench.calibrate(
        "--joint", "shoulder", "--at", "-45deg", "--at", "45deg", said=((0, -math.pi / 4, ""), (0, math.pi / 4, ""))
    )  # fmt: skip
    row = load_board(bench.file).sections.channel[0]
    assert (row.sign, row.gear, row.zero) == (-1, 50, pytest.approx(-812_345, abs=2))
    for text in ("before", "after", "sign", "zero", "at 0.7854 rad it reads", "0.7854 rad"):
        assert text in shown


def test_one_pose_moves_the_zero_only(bench: Bench):
    bench.calibrate("--joint", "wrist/effort", "--at", "0.5", said=((3, 0.5, ""),))
    after, before = load_board(bench.file).sections.sensor[0], Counting(counts_per_turn=8192)
    assert after.zero == pytest.approx(-77, abs=1)
    assert (after.sign, after.gear, after.size) == (before.sign, before.gear, before.size)


def test_a_dry_run_shows_and_writes_nothing(bench: Bench):
    shown = bench.calibrate("--joint", "wrist", "--at", "0", "--dry-run", said=((3, 0.0, ""),))
    assert "-77" in shown
    assert "nothing is written" in shown
    assert bench.file.read_text() == FILE


def test_poses_that_deny_the_gear_are_told_and_need_a_word(bench: Bench):
    said = ((1, 0.0, ""), (1, 1.0, ""))
    two = ("--joint", "elbow", "--at", "0", "--at", "1")
    with pytest.raises(CalibrationError, match=r"elbow/position: gear is 1 in the file, 98\.\d+ by the poses; --refit"):
        bench.calibrate(*two, said=said)
    assert bench.file.read_text() == FILE
    bench.calibrate(*two, "--refit", said=said)
    assert load_board(bench.file).sections.channel[1].gear == pytest.approx(ELBOW_GEAR, rel=1e-3)
    before = bench.file.read_text()
    bench.calibrate("--joint", "rail", said=((2, 0.0, "0"), (2, 1.0, "2"), "", "n"))  # a slip of the hand, admitted
    assert bench.file.read_text() == before


def test_a_joint_that_moves_or_trembles_gives_no_pose(bench: Bench):
    shoulder = bench.plant.encoders[0]
    shoulder.speed = 0.01
    with pytest.raises(CalibrationError, match=r"shoulder/position: it moves: the count drifts by \d+ in 0.5 s"):
        bench.calibrate("--joint", "shoulder", "--at", "0", said=((0, 0.0, ""),))
    shoulder.speed, shoulder.noise = 0.0, 400
    with pytest.raises(CalibrationError, match=r"it moves or is noisy: the count spreads over \d+, at most 162 is"):
        bench.calibrate("--joint", "shoulder", "--at", "0", said=((0, 0.0, ""),))
    bench.calibrate("--joint", "shoulder", "--at", "0", "--noise", "800", said=((0, 0.0, ""),))
    assert load_board(bench.file).sections.channel[0].zero == pytest.approx(-812_345, abs=200)


def test_what_cannot_be_a_pose_is_asked_for_again(bench: Bench):
    shown = bench.calibrate(
        "--joint", "shoulder",
        said=((0, 0.0, "zero"), "0 deg", "0", (0, 1e-4, "1"), (0, 1.0, "1"), ""),
    )  # fmt: skip
    assert "not taken: found 'zero'; expected a number in rad or deg or °" in shown
    assert "not taken: all poses are at one place; another one is needed" in shown
    assert "is this the joint that was moved, and far enough?" in shown
    assert load_board(bench.file).sections.channel[0].sign == -1


def test_nobody_reaches_into_an_armed_board(bench: Bench):
    with Link(bench.port) as link:
        link.upload_limits(LIMITS)
        link.arm()
        board, state = load_board(bench.file), link.latest
        assert state is not None
        with pytest.raises(LinkError, match="the board is ARMED"):
            read_count(link, 0, noise=100)
    with pytest.raises(LinkError, match="the board is ARMED; `kizzasi-bridge send disarm"):
        bench.calibrate("--joint", "shoulder", "--at", "0")
    with Link(bench.port) as link:
        link.disarm()
    assert "The board is READY and holds its joints." in bench.calibrate("--joint", "rail", said=("",))
    assert load_board(bench.file) == board


def test_a_board_that_restarts_between_poses_is_not_trusted(bench: Bench, tmp_path: Path):
    class Clumsy(Technician):
        def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
            if not self._lines[1:]:
                bench.board.terminate()
                restarted.enter_context(PosixBoard(load_board(bench.file).schema, directory=tmp_path))
            return super().readinto(buffer)

    said = ((0, 0.0, ""), "")
    with ExitStack() as restarted, pytest.raises(LinkError, match="the board has restarted"):
        bench.calibrate("--joint", "shoulder", "--at", "0", "--at", "1", said=said, technician=Clumsy)
    assert bench.file.read_text() == FILE


def test_no_input_no_pose(bench: Bench):
    with pytest.raises(typer.Abort):
        bench.calibrate("--joint", "shoulder", "--at", "0", "--at", "1", said=((0, 0.0, ""),))
    assert bench.file.read_text() == FILE


def test_line_ends_stay_as_they_are(bench: Bench):
    bench.file.write_bytes(FILE.replace("\n", "\r\n").encode())
    bench.calibrate("--joint", "shoulder", "--at", "0", said=((0, 0.0, ""),))
    lines = bench.file.read_bytes().split(b"\n")
    assert b"\r" not in lines[-1]
    assert all(line.endswith(b"\r") for line in lines[:-1])


def test_another_board_is_not_calibrated(bench: Bench):
    bench.file.write_text(FILE.replace("elbow/", "hip/"))
    with pytest.raises(
        LinkError, match=r"the board's channels are \['shoulder/position', 'elbow/position'.*'hip/position'"
    ):
        bench.calibrate("--joint", "shoulder", "--at", "0")


def test_options_that_do_not_fit(bench: Bench):
    with pytest.raises(ConfigError, match=r"--joint: found 'knee'; expected a joint or one of \['shoulder/position'"):
        bench.calibrate("--joint", "knee", "--at", "0")
    with pytest.raises(CalibrationError, match="found '3 mm'; expected a number in rad"):
        bench.calibrate("--joint", "elbow", "--at", "3 mm")
    with pytest.raises(CalibrationError, match="one pose says nothing about the scale"):
        bench.calibrate("--joint", "wrist", "--at", "0", "--refit", said=((3, 0.0, ""),))
    done = CliRunner().invoke(app, ["calibrate", str(bench.port), str(bench.file), "--at", "0"])
    assert done.exit_code == 2
    assert "--at needs --joint" in done.output


def test_the_file_is_written_whole_where_it_is_linked_to_and_not_over_another_edit(bench: Bench, tmp_path: Path):
    real = tmp_path / "shelf" / "arm.toml"
    real.parent.mkdir()
    bench.file.rename(real)
    real.chmod(0o640)
    bench.file.symlink_to(real)
    bench.calibrate("--joint", "wrist", "--at", "0", said=((3, 0.0, ""),))
    assert bench.file.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert load_board(real).sections.sensor[0].zero == pytest.approx(-77, abs=1)
    assert os.listdir(real.parent) == ["arm.toml"]

    class Editor(Technician):
        def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
            real.write_text(FILE)
            return super().readinto(buffer)

    with pytest.raises(ConfigError, match="somebody else has changed it meanwhile"):
        bench.calibrate("--joint", "wrist", "--at", "0", said=((3, 0.5, ""),), technician=Editor)
    assert real.read_text() == FILE


# ---- the arithmetic, alone -----------------------------------------------------------------------

KNOWN = Counting(counts_per_turn=4096, gear=50.0, zero=5)


@settings(max_examples=50)
@given(
    sign=st.sampled_from((1, -1)),
    gear=st.floats(0.1, 300),
    zero=st.integers(-(2**29), 2**29),
    places=st.lists(st.floats(-3, 3), min_size=2, max_size=5).filter(lambda at: max(at) - min(at) > 0.5),
)
def test_exact_poses_give_sign_gear_and_zero_back(sign: int, gear: float, zero: int, places: list[float]):
    true = Counting(counts_per_turn=4096, gear=gear, sign=sign, zero=zero)
    poses = [Pose(at, at / true.scale + zero, 0) for at in places]
    found = fit(KNOWN, poses, refit=True)
    assert found.values.get("gear", KNOWN.gear) == pytest.approx(gear, rel=6e-6)
    assert found.scale == pytest.approx(true.scale, rel=6e-6)
    assert found.values.get("sign", KNOWN.sign) == sign
    assert found.residual <= abs(true.scale) + 3e-5
    assert found.ratio == pytest.approx(50 / gear)
    quantum = fit(Counting(quantum=1.0, unit="rad"), poses, refit=True)
    assert quantum.values["quantum"] == pytest.approx(abs(true.scale), rel=6e-6)


@pytest.mark.parametrize(("off", "agrees"), [(1.0, True), (1.015, True), (0.985, True), (1.03, False), (-1.0, True)])
def test_a_gear_within_two_percent_is_the_files_and_the_rest_is_residual(off: float, agrees: bool):
    poses = [Pose(at, at / KNOWN.scale * off, 2) for at in (-1.0, 1.0)]
    found = fit(KNOWN, poses)
    assert found.agrees == agrees
    assert "gear" not in found.values
    assert found.residual == pytest.approx(abs(abs(off) - 1), abs=1e-4)
    assert abs(found.scale) == abs(KNOWN.scale)


def test_poses_that_differ_by_little_more_than_noise_say_nothing():
    near = [Pose(0.0, 100.0, 4), Pose(0.5, 180.0, 0)]
    with pytest.raises(CalibrationError, match="differs by 80 between the poses, and is uncertain by 5"):
        fit(KNOWN, near)
    assert fit(KNOWN, [near[0], Pose(0.5, 205.0, 0)]).ratio is not None


def test_a_zero_that_the_node_cannot_guard_around_is_refused():
    with pytest.raises(CalibrationError, match=r"at count -3000000000; the node guards nothing beyond ±1073741823"):
        fit(Counting(quantum=1e-9, unit="rad"), [Pose(3.0, 0.0, 0)])


def test_new_keys_come_before_the_comment_of_the_next_table(tmp_path: Path):
    file = tmp_path / "board.toml"
    for text in (FILE, FILE.rstrip("\n"), FILE.replace("[[sensor]]", "[[sensor]] # last")):
        file.write_text(text)
        board = load_board(file)
        new, after = edited(board, text, {("channel", 0): {"zero": 9, "sign": -1}, ("sensor", 0): {"zero": 4}})
        assert "gear = 50\nzero = 9\nsign = -1\n\n# Ordered in May.\n[[channel]]" in new
        assert "counts_per_turn = 8192\nzero = 4\n# end" in new
        assert (after.sections.channel[0].zero, after.sections.sensor[0].zero) == (9, 4)
    inline = """schema = 1
board = {name = "b", tick_us = 1000}
channel = [
  {name = "a/position", quantum = 1e-3}, # first
  {name = "b/position", quantum = 1e-3, zero = 4}, # second
]
"""
    file.write_text(inline)
    changes = {("channel", 0): {"zero": 7}, ("channel", 1): {"zero": 8, "quantum": 0.25}}
    new, _ = edited(load_board(file), inline, changes)
    expected = inline.replace("1e-3}", "1e-3, zero = 7}").replace("1e-3, zero = 4", "0.25, zero = 8")
    assert "".join(new.split()) == "".join(expected.split())
