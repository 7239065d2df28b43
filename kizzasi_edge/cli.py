"""``kizzasi-edge``: every command imports what it needs when it runs, so that ``--help`` costs nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from kizzasi_edge.errors import KizzasiError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Run learned sequence models on robots, safely.",
    rich_markup_mode="rich",
)
console = Console()

JsonPath = Annotated[Path | None, typer.Option("--json", help="Write the result as one JSON object to this file.")]
Config = Annotated[Path, typer.Argument(help="A robot.toml.")]
Socket = Annotated[Path | None, typer.Option("--socket", help="Control socket; default: the only one in its folder.")]


def write_json(path: Path | None, value: Any) -> None:
    """One object to ``path``, if asked for."""
    if path is not None:
        try:
            path.write_text(json.dumps(value, indent=2) + "\n")
        except OSError as exc:
            raise KizzasiErrorExit(f"--json: found {str(path)!r}; it cannot be written: {exc.strerror}") from None


@app.command()
def demo(
    name: Annotated[str, typer.Argument(help="Which demo: arm.")] = "arm",
    seconds: Annotated[float, typer.Option(min=1.0, help="How long the arm is armed.")] = 30.0,
    rate: Annotated[float, typer.Option(help="Command rate [Hz]; the shipped policy was trained at 500.")] = 500.0,
    adversary: Annotated[
        str | None, typer.Option(help="Sabotage the model's output: random, stuck, nan or model-swap.")
    ] = None,
    json_path: JsonPath = None,
    headless: Annotated[bool, typer.Option("--headless", help="No live table.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for the report and the recordings.")] = Path("runs/arm"),
    model: Annotated[Path | None, typer.Option(help="A policy of the same inputs and outputs instead of ours.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the targets and of the sensor noise.")] = 1,
) -> None:
    """Run a demo: the real firmware, the real link and the real guard around a simulated plant."""
    if name != "arm":
        raise typer.BadParameter(f"found {name!r}; this version has: arm")
    from kizzasi_edge.demo.arm import run_demo

    result = run_demo(
        seconds=seconds,
        rate_hz=rate,
        adversary=adversary,
        out=out,
        seed=seed,
        console=console,
        live=not headless,
        model=model,
    )
    write_json(json_path, result)


@app.command()
def run(
    config: Config,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read, step, guard and record; never arm.")] = False,
    arm: Annotated[bool, typer.Option("--arm", help="Arm once, at start.")] = False,
) -> None:
    """Run a robot until interrupted; `status`, `arm`, `disarm`, `estop`, `clear` and `reset-state` talk to it."""
    from kizzasi_edge.config import load_config
    from kizzasi_edge.robot import Robot

    if dry_run and arm:
        raise typer.BadParameter("--dry-run never arms; give one of --dry-run and --arm")
    robot = Robot(load_config(config))
    loop = robot.run(dry_run=dry_run, arm=arm)
    if robot.arm_error:
        raise KizzasiErrorExit(f"not armed: {robot.arm_error}")
    console.print_json(data={key: value for key, value in robot.status().items() if key != "device"})
    console.print(f"{loop.stats.ticks} ticks, {loop.stats.armed_ticks} armed; {loop.pace.overruns} overruns.")


class KizzasiErrorExit(KizzasiError):
    """A run that ended without doing what was asked."""


def _operate(op: str, socket: Path | None) -> None:
    from kizzasi_edge.control import find_socket, request
    from kizzasi_edge.live import table

    answer = request(socket or find_socket(), op)
    console.print(table(answer))


@app.command()
def status(
    socket: Socket = None,
    watch: Annotated[bool, typer.Option("--watch", help="Keep the table on screen until interrupted.")] = False,
    json_path: JsonPath = None,
) -> None:
    """Show a running robot."""
    import time

    from rich.live import Live

    from kizzasi_edge.control import find_socket, request
    from kizzasi_edge.live import table

    path = socket or find_socket()
    answer = request(path, "status")
    write_json(json_path, answer)
    with Live(table(answer), console=console, refresh_per_second=4) as live:
        while watch:
            time.sleep(0.25)
            live.update(table(request(path, "status")))


@app.command()
def arm(socket: Socket = None) -> None:
    """Arm a running robot: from here on it moves."""
    _operate("arm", socket)


@app.command()
def disarm(socket: Socket = None) -> None:
    """Brake to rest and go back to READY."""
    _operate("disarm", socket)


@app.command()
def estop(socket: Socket = None) -> None:
    """Emergency stop: latched until `clear`."""
    _operate("estop", socket)


@app.command()
def clear(socket: Socket = None) -> None:
    """Leave FAILSAFE or ESTOP for READY; it does not arm."""
    _operate("clear", socket)


@app.command("reset-state")
def reset_state(socket: Socket = None) -> None:
    """Let the model start anew from its initial state; the guard forgets nothing."""
    _operate("reset_state", socket)


@app.command()
def check(
    config: Annotated[Path, typer.Argument(help="A robot.toml or *.guard.toml.")], json_path: JsonPath = None
) -> None:
    """Check a configuration without moving anything, and explain its guard."""
    from kizzasi_edge.check import check as run_check

    report = run_check(config)
    write_json(json_path, report)
    if report["guard"]:
        console.print(report["guard"] + "\n", highlight=False, markup=False, soft_wrap=True)
    for text in report["warnings"]:
        console.print(f"warning: {text}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    if not report["ok"]:
        raise KizzasiErrorExit("\n".join(report["errors"]))
    console.print("ok", style="green")


@app.command()
def inspect(model: Annotated[Path, typer.Argument(help="A model (.onnx).")], json_path: JsonPath = None) -> None:
    """Print a model's manifest and replay its stored parity vector."""
    from kizzasi_edge.inspect import run_inspect

    if not run_inspect(model, json_path):
        raise KizzasiErrorExit(f"{model}: the parity vector was not reproduced")


@app.command()
def bench(
    model: Annotated[Path, typer.Argument(help="A model (.onnx).")],
    seconds: Annotated[float, typer.Option(help="Time for each figure.")] = 3.0,
    json_path: JsonPath = None,
) -> None:
    """Time a model's step: tight, and paced at its own rate."""
    from kizzasi_edge.bench import run_bench

    run_bench(model, seconds, json_path)


@app.command()
def schema() -> None:
    """Print the JSON schemas of robot.toml and *.guard.toml."""
    from kizzasi_edge.config import RobotFile
    from kizzasi_edge.guardrails.spec import GuardFile

    console.print_json(data={"robot.toml": RobotFile.model_json_schema(), "guard.toml": GuardFile.model_json_schema()})


@app.command()
def connectors() -> None:
    """List the connectors that a robot.toml can name."""
    from kizzasi_edge.connectors import available

    for name, where in sorted(available().items()):
        console.print(f"{name:12} {where}", highlight=False)


@app.command()
def ports() -> None:
    """List serial ports, with the stable by-id path where there is one."""
    try:
        from serial.tools import list_ports
    except ImportError:
        from kizzasi_edge.errors import MissingExtra

        raise MissingExtra("listing ports needs pyserial: pip install 'kizzasi-edge[serial]'") from None
    links = (
        {path.resolve(): path for path in Path("/dev/serial/by-id").glob("*")}
        if Path("/dev/serial/by-id").exists()
        else {}
    )
    for port in sorted(list_ports.comports()):
        console.print(f"{links.get(Path(port.device).resolve(), port.device)}  {port.description}", highlight=False)


def main() -> None:
    """Entry point: an error of ours is one screen on stderr and exit code 1, never a traceback."""
    try:
        app()
    except KizzasiError as exc:
        Console(stderr=True).print(f"error: {exc}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
