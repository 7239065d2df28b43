"""What ``kizzasi-bridge calibrate`` does: ask for poses, show what they change, write the board.toml."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from .board_edit import edited
from .board_file import parse_board
from .calibrate import Fit, Pose, fit, read_count
from .errors import CalibrationError, ConfigError, LinkError
from .link import Link
from .protocol import NodeState
from .request import code_name
from .schema_commands import schema_hash
from .toml_file import read_toml
from .written import write_file

__all__ = ["Calibrator"]

_STILL, _STILL_COUNTS = 0.005, 4
_FACTORS = {"rad": {"deg": math.radians(1), "°": math.radians(1)}, "m": {"mm": 1e-3}}
_HOLDING = (NodeState.READY, NodeState.FAILSAFE)
_SILENCE_S = 2.0


class Calibrator:
    """A board, its file, and what poses have said so far.

    Args:
        link: open; only read from.
        path: the board.toml.
        refit: take the scale from the poses, not from the file.
        noise: counts that a resting sensor may wander; None: 5 mrad or 5 mm by the file's scale, at least 4.
        console: where everything is shown.

    Raises:
        ConfigError: the file cannot be read or used.
        LinkError: the board has other channels or sensors than the file, is ARMED, or silent.
    """

    def __init__(self, link: Link, path: Path, *, refit: bool, noise: int | None, console: Console) -> None:
        self._link, self._refit, self._noise, self._console = link, refit, noise, console
        self._path = path.resolve()  # a link stays one
        self._board = parse_board(read_toml(path, ConfigError), path)
        self._text = self._read()
        self._boot_id = link.hello.boot_id
        self._names = [sensor.name for sensor in self._board.schema.sensors]
        self._units = [sensor.unit for sensor in self._board.schema.sensors]
        self._fits: dict[int, tuple[Fit, Sequence[Pose]]] = {}
        for kind in ("channels", "sensors"):
            here, there = ([row.name for row in getattr(schema, kind)] for schema in (self._board.schema, link.schema))
            if here != there:
                raise LinkError(f"port {link.port}: the board's {kind} are {there}, those of {path} are {here}")
        state = link.wait_state(0, _SILENCE_S)
        if state is None:
            raise LinkError(f"port {link.port}: no STATE for {_SILENCE_S:g} s")
        if state.state == NodeState.ARMED:
            raise LinkError(f"port {link.port}: the board is ARMED; `kizzasi-bridge send disarm {link.port}` first")
        if state.state in _HOLDING:
            held = f"The board is {code_name(NodeState, state.state)} and holds its joints."
            self._say(f"{held} To let go of them: `kizzasi-bridge send estop {link.port}`, then begin again.", "yellow")

    def script(self, joint: str, at: Sequence[str]) -> None:
        """Read a pose for each of ``at``, once a line of input says that the joint is there.

        Raises:
            ConfigError: no such joint.
            CalibrationError: a pose cannot be used, or the poses say another scale than the file.
        """
        index = self._sensor(joint)
        poses = []
        for text, place in [(text, self._place(index, text)) for text in at]:
            _prompt(f"{self._names[index]}: put it at {text}, then Enter")
            poses.append(self._pose(index, place))
        found = fit(self._board.counting(index), poses, refit=self._refit)
        if not (self._refit or found.agrees):
            raise CalibrationError(
                f"{self._names[index]}: {self._disagreement(index, poses)}; --refit takes it from them"
            )
        self._fits[index] = found, poses

    def interactive(self, joint: str | None) -> None:
        """Ask for the poses of one joint, or of every channel's. Raises ConfigError if there is no such joint."""
        measured = [i for i, sensor in enumerate(self._board.schema.sensors) if sensor.channel is not None]
        chosen = measured if joint is None else [self._sensor(joint)]
        self._say(
            "Put the joint at a known pose and type where that is. One pose gives the zero; a second one gives the "
            "sign, and shows whether the scale is right. Enter alone: done with this joint."
        )
        for index in chosen:
            self._ask(index)

    def finish(self, *, dry_run: bool) -> None:
        """Show what changes, write it, and say what is to be done then. Raises ConfigError if that fails."""
        changes = {self._board.sources[index]: found.values for index, (found, _) in self._fits.items()}
        text, after = edited(self._board, self._text, changes)
        self._console.print(self._table(), highlight=False)
        if dry_run or text == self._text:
            self._say(f"{self._path}: nothing is written")
            return
        if self._read() != self._text:
            raise ConfigError(f"{self._path}: somebody else has changed it meanwhile; nothing is written")
        write_file(self._path, text.encode(), ConfigError)
        file, was, now = self._path.name, schema_hash(self._board.schema), schema_hash(after.schema)
        self._say(f"{self._path}: written, hash {now:#010x} (it was {was:#010x}). The board does not know yet:")
        self._say(f"1. kizzasi-bridge schema {file} -o schema.h; build and flash the firmware")
        self._say(f"2. kizzasi-bridge schema {file} --check {self._link.port}")
        self._say(
            "3. where a scale has changed, [joints] quantum of the guard file; limits of the old hash are refused"
        )

    def _sensor(self, joint: str) -> int:
        """Index of the sensor that ``joint`` means: its own name, its channel's, or the joint's part of that."""
        schema = self._board.schema
        for index, sensor in enumerate(schema.sensors):
            channel = "" if sensor.channel is None else schema.channels[sensor.channel].name
            if joint in (sensor.name, channel, channel.rpartition("/")[0]):
                return index
        raise ConfigError(f"--joint: found {joint!r}; expected a joint or one of {self._names}")

    def _ask(self, index: int) -> None:
        counting, poses = self._board.counting(index), list[Pose]()
        while text := _prompt(f"{self._names[index]} [{self._units[index]}]"):
            try:
                pose = self._pose(index, self._place(index, text))
                fit(counting, [*poses, pose])
            except CalibrationError as error:
                self._say(f"  not taken: {error}", "red")
                continue
            poses.append(pose)
            self._say(f"  taken: count {pose.count:.1f}, spread {pose.spread}")
        if not poses:
            return
        found = fit(counting, poses)
        refit = self._refit and len(poses) > 1
        if not (refit or found.agrees):
            refit = typer.confirm(f"  {self._disagreement(index, poses)}. Take it from them?", default=False)
            if not refit:
                return
        self._fits[index] = fit(counting, poses, refit=refit), poses

    def _pose(self, index: int, place: float) -> Pose:
        noise = self._noise
        if noise is None:
            noise = max(_STILL_COUNTS, int(_STILL / abs(self._board.counting(index).scale)))
        try:
            pose = Pose(place, *read_count(self._link, index, noise=noise))
        except CalibrationError as error:
            raise CalibrationError(f"{self._names[index]}: {error}") from None
        if self._link.hello.boot_id != self._boot_id:
            raise LinkError(f"port {self._link.port}: the board has restarted; an encoder may have lost its place")
        return pose

    def _place(self, index: int, text: str) -> float:
        """SI from "1.57", "90deg", "90°" or "150mm"."""
        unit = self._units[index]
        factors = {"": 1.0, unit: 1.0, **_FACTORS.get(unit, {})}
        found = re.fullmatch(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(.*)", text.strip())
        if not found or found[2] not in factors:
            raise CalibrationError(f"found {text!r}; expected a number in {' or '.join(filter(None, factors))}")
        return float(found[1]) * factors[found[2]]

    def _disagreement(self, index: int, poses: Sequence[Pose]) -> str:
        counting = self._board.counting(index)
        key = "quantum" if counting.size == "quantum" else "gear"
        measured = fit(counting, poses, refit=True).values.get(key)
        return f"{key} is {getattr(counting, key) or 1:g} in the file, {measured:g} by the poses"

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("", no_wrap=True)
        for name in ("before", "after"):
            table.add_column(name, justify="right", no_wrap=True)
        for index, (found, poses) in self._fits.items():
            counting, unit = self._board.counting(index), self._units[index]
            table.add_row(self._names[index], style="bold")
            for key, value in found.values.items():
                was = getattr(counting, key)
                table.add_row(f"  {key}", "" if was is None else f"{was:.9g}", f"{value:.9g}")
            for pose in poses:
                reads = [
                    f"{(pose.count - zero) * scale:.4f} {unit}"
                    for zero, scale in ((counting.zero, counting.scale), (found.zero, found.scale))
                ]
                table.add_row(f"  at {pose.at:.4f} {unit} it reads", *reads)
        return table

    def _read(self) -> str:
        return self._path.read_bytes().decode()  # line ends stay as they are

    def _say(self, text: str, style: str | None = None) -> None:
        self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _prompt(text: str) -> str:
    answer: str = typer.prompt(text, default="", show_default=False)
    return answer.strip()
