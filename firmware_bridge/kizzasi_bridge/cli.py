"""``kizzasi-bridge``: look at a board and talk to it by hand, without a model or a loop."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from .errors import ConnectorError, KizzasiError, LinkError
from .protocol import Fault, NodeState, ResetCause
from .request import code_name
from .schema import Channel, Sensor
from .serial_port import Dtr

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
Action = Literal["estop", "clear", "arm", "disarm"]

_REFRESH_HZ = 10
_CONFIRM_S = 2.0


@app.command()
def monitor(
    port: Port,
    baud: Baud = 1_000_000,
    dtr: DtrOption = "auto",
    seconds: Annotated[float, typer.Option(help="Stop after this long; 0: until Ctrl-C.")] = 0.0,
) -> None:
    """Watch a board live: state, session, rates, every channel in SI units, counters and faults."""
    from .monitor import Monitor

    with _link(port, baud, dtr) as link:
        view = Monitor(link)
        end = time.monotonic() + seconds if seconds else float("inf")
        with Live(view.screen(), console=console, refresh_per_second=_REFRESH_HZ, transient=False) as live:
            while (now := time.monotonic()) < end:
                time.sleep(min(1 / _REFRESH_HZ, end - now))
                live.update(view.screen())


@app.command()
def send(
    action: Annotated[Action, typer.Argument(help="What the board shall do.")],
    port: Port,
    baud: Baud = 1_000_000,
    dtr: DtrOption = "auto",
    socket: Annotated[
        Path | None, typer.Option(help="Control socket of the run that holds the port; found by itself if in /run.")
    ] = None,
) -> None:
    """Send one request; through the control socket when `kizzasi-edge run` holds the port."""
    from .holder import ask_holder, control_socket_of

    link = _link(port, baud, dtr)
    try:
        if socket is None:
            link.open()
    except LinkError:
        raise
    except ConnectorError:
        socket = control_socket_of(port)
        if socket is None:
            raise
    if socket is not None:
        ask_holder(socket, action)
        console.print(f"{action}: done by the run behind {socket}", highlight=False)
        return
    with link:
        _perform(link, action)


@app.command(name="flash-info")
def flash_info(port: Port, baud: Baud = 1_000_000, dtr: DtrOption = "auto") -> None:
    """Print what is flashed on a board: its HELLO and its schema."""
    with _link(port, baud, dtr) as link:
        hello = link.hello
        schema = link.schema
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    for name, value in (
        ("board", schema.board),
        ("protocol", f"{hello.major}.{hello.minor}"),
        ("state", code_name(NodeState, hello.state)),
        ("reset cause", code_name(ResetCause, hello.reset_cause)),
        ("boot id", f"{hello.boot_id:#010x}"),
        ("schema", f"{hello.schema_hash:#010x}, {hello.schema_len} bytes"),
        ("limits", f"{hello.limits_hash:#010x}" if hello.limits_hash else "none committed"),
        ("period", f"{hello.period_us} µs" if hello.period_us else "none until limits are committed"),
        ("tick", f"{schema.tick_us} µs"),
    ):
        table.add_row(name, value)
    console.print(table, highlight=False)
    console.print()
    console.print(_rows("channels", schema.channels))
    console.print()
    console.print(_rows("sensors", schema.sensors))


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


def _perform(link: Link, action: Action) -> None:
    """Do ``action`` and print the state that the board shows after it."""
    if action == "estop":
        link.estop()
        deadline = time.monotonic() + _CONFIRM_S
        while link.estop_pending:
            if time.monotonic() > deadline:
                raise LinkError(f"port {link.port}: ESTOP was sent for {_CONFIRM_S:g} s and STATE does not show it")
            link.wait_state(link.latest.count if link.latest else 0, 0.02)
            link.heartbeat()  # repeats the ESTOP while it is not confirmed
    elif action == "arm":
        session = link.arm()
        console.print(f"session {session:#010x}; without a COMMAND the board goes to FAILSAFE", highlight=False)
    elif action == "disarm":
        link.disarm()
    else:
        link.clear()
    state = link.wait_state(link.latest.count if link.latest else 0, _CONFIRM_S)
    if state is None:
        raise LinkError(f"port {link.port}: {action} was accepted, but no STATE arrives")
    fault = f", fault {code_name(Fault, state.fault)}" if state.fault else ""
    console.print(f"{action}: board is in {code_name(NodeState, state.state)}{fault}", highlight=False)


def main() -> None:
    """Entry point: an error of ours is one screen on stderr and exit code 1, never a traceback."""
    try:
        app()
    except KizzasiError as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
