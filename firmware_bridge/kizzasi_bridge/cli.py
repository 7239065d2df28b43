"""``kizzasi-bridge``: look at a board and talk to it by hand, without a model or a loop."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from .actions import Action, perform
from .advice import RESETS
from .errors import KizzasiError
from .protocol import NodeState, ResetCause
from .request import code_name
from .schema import Channel, Sensor
from .serial_port import Dtr, port_findings

if TYPE_CHECKING:
    from .link import Link

__all__ = ["app", "main"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Talk to a kizzasi board over its serial port.",
    rich_markup_mode="rich",
)
console = Console()

Port = Annotated[str, typer.Argument(help="Serial port, best as /dev/serial/by-id/...")]
Baud = Annotated[int, typer.Option(help="Bits per second; USB and ptys ignore it.")]
DtrOption = Annotated[Dtr, typer.Option(help="Modem lines: as the OS does, raised, or lowered.")]
BoardFileArgument = Annotated[Path, typer.Argument(metavar="BOARD.TOML", help="What the board drives and measures.")]

_REFRESH_HZ = 10
_LOOK_S = 2.0


@app.command()
def monitor(
    port: Port,
    baud: Baud = 1_000_000,
    dtr: DtrOption = "auto",
    seconds: Annotated[float, typer.Option(help="Stop after this long; 0: until Ctrl-C.")] = 0.0,
    csv: Annotated[
        Path | None,
        typer.Option(
            help="Write every STATE from some seconds before the last fault to 1 s after it here, as a table."
        ),
    ] = None,
) -> None:
    """Watch a board live: state, rates, every channel in SI units, faults and what to do about them.

    It only looks. The port may be unplugged and plugged in again meanwhile. With --csv and without a fault, the
    newest STATEs are written when it ends.
    """
    from .blackbox import BlackBox, write_csv
    from .monitor import screen

    box = BlackBox()
    saved = False
    with _link(port, baud, dtr) as link:
        if csv is not None:
            write_csv(csv, link.history(0), link.schema, 0)  # says now if it cannot
        end = time.monotonic() + seconds if seconds else float("inf")
        with suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False) as live:
            while True:
                schema = link.schema
                if box.look(link.history(), schema) and csv is not None:
                    write_csv(csv, box.rows, schema, link.hello.period_us)
                    saved = True
                live.update(screen(link, box, console.width), refresh=True)
                left = end - time.monotonic()
                if left <= 0:
                    break
                time.sleep(min(1 / _REFRESH_HZ, left))
        if csv is not None and not saved:
            write_csv(csv, link.history(), link.schema, link.hello.period_us)


@app.command()
def send(
    action: Annotated[Action, typer.Argument(help="What the board shall do.")],
    port: Port,
    baud: Baud = 1_000_000,
    dtr: DtrOption = "auto",
    socket: Annotated[
        Path | None, typer.Option(help="Control socket of the run that holds the port; found by itself if in /run.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object, errors too.")] = False,
) -> None:
    """Have the board do one thing, and see that it does; through the run's control socket where one holds the port.

    Exit code 0: the board shows it. 1: it does not, and stderr says why. 2: wrong arguments.
    """
    try:
        done, text = perform(action, _link(port, baud, dtr), socket)
    except KizzasiError as error:
        if not json_:
            raise
        _print_json({"ok": False, "error": str(error)})
        raise typer.Exit(1) from None
    if json_:
        _print_json({"ok": True, **done})
    else:
        console.print(f"{action}: {text}", highlight=False)


@app.command(name="flash-info")
def flash_info(port: Port, baud: Baud = 1_000_000, dtr: DtrOption = "auto") -> None:
    """Print what is flashed on a board, HELLO and schema, and what can be said about the line to it."""
    from .monitor import latency

    with _link(port, baud, dtr) as link:
        hello = link.hello
        schema = link.schema
        deadline = time.monotonic() + _LOOK_S
        while not (link.line.states_hz and link.clock) and time.monotonic() < deadline:
            time.sleep(0.02)
        answers = latency(link)
        trouble = [*link.line.findings, *(text for _, text in port_findings(port))]
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    for name, value in (
        ("board", schema.board),
        ("protocol", f"{hello.major}.{hello.minor}"),
        ("state", code_name(NodeState, hello.state)),
        ("reset cause", f"{code_name(ResetCause, hello.reset_cause)}, {RESETS.get(hello.reset_cause, '')}"),
        ("boot id", f"{hello.boot_id:#010x}"),
        ("schema", f"{hello.schema_hash:#010x}, {hello.schema_len} bytes"),
        ("limits", f"{hello.limits_hash:#010x}" if hello.limits_hash else "none committed"),
        ("period", f"{hello.period_us} µs" if hello.period_us else "none until limits are committed"),
        ("tick", f"{schema.tick_us} µs"),
        ("line", answers),
    ):
        table.add_row(name, value)
    console.print(table, highlight=False)
    console.print()
    console.print(_rows("channels", schema.channels))
    console.print()
    console.print(_rows("sensors", schema.sensors))
    for text in trouble:
        console.print(text, style="red", markup=False, highlight=False)


@app.command(name="schema")
def schema_of(
    file: BoardFileArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the C header that firmware includes.")
    ] = None,
    check: Annotated[
        str | None, typer.Option(help="Port of a board: does it carry this table?", metavar="PORT")
    ] = None,
    baud: Baud = 1_000_000,
    dtr: DtrOption = "auto",
) -> None:
    """Show the calibration table that a board.toml describes; make firmware of it, or compare it with a board's."""
    from .board_file import load_board
    from .schema_commands import compare, show, write_header

    board = load_board(file)
    if output is not None:
        write_header(board, output, console)
    if check is not None:
        with _link(check, baud, dtr) as link:
            compare(board, link, console)
    if output is None and check is None:
        show(board, console)


@app.command()
def calibrate(
    port: Port,
    file: BoardFileArgument,
    joint: Annotated[str | None, typer.Option(help="The one to calibrate; else all, one after another.")] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(
            help="A pose of --joint: 0, 1.57, 90deg, 150mm. It is read when a line of input comes. Repeat it."
        ),
    ] = None,
    refit: Annotated[bool, typer.Option("--refit", help="Take gear, or quantum, from the poses.")] = False,
    noise: Annotated[int | None, typer.Option(help="Counts that a resting sensor may wander.", min=0)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change and write nothing.")] = False,
    baud: Baud = 1_000_000,
    dtr: DtrOption = "auto",
) -> None:
    """Move joints to known poses by hand and write zero, sign and scale into the board.toml. Moves nothing itself."""
    from .calibrate_commands import Calibrator

    if at and joint is None:
        raise typer.BadParameter("--at needs --joint")
    with _link(port, baud, dtr) as link:
        calibrator = Calibrator(link, file, refit=refit, noise=noise, console=console)
        if joint is not None and at:
            calibrator.script(joint, at)
        else:
            calibrator.interactive(joint)
        calibrator.finish(dry_run=dry_run)


def _rows(title: str, items: Sequence[Channel | Sensor]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(title, no_wrap=True)
    for name in ("zero", "quantum"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("unit")
    table.add_column("measures")
    for item in items:
        measures = f"channel {item.channel}" if isinstance(item, Sensor) and item.channel is not None else ""
        table.add_row(item.name, str(item.zero), f"{item.scale:.9g}", item.unit, measures)
    return table


def _link(port: str, baud: int, dtr: Dtr) -> Link:
    from .link import Link

    return Link(port, baud=baud, dtr=dtr)


def _print_json(data: dict[str, object]) -> None:
    console.print(json.dumps(data), markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point: an error of ours is one screen on stderr and exit code 1, never a traceback."""
    try:
        app()
    except KizzasiError as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
