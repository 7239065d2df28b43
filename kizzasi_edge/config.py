"""``robot.toml``: one model, its guard, the loop, and the connectors it reads from and writes to.

This module only reads and checks the file; ``robot.assemble`` builds the parts and checks them against each other.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StrictBool, StrictStr

from kizzasi_edge.errors import ConfigError
from kizzasi_edge.toml_file import Number, Section, read_toml, validate


class RobotSection(Section):
    """``[robot]``: a name for logs and the control socket."""

    name: Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9_.-]+$")]


class ModelSection(Section):
    """``[model]``: path of the ``.onnx`` file, relative to the robot.toml."""

    path: StrictStr
    engine: Literal["auto", "ort", "native"] = "auto"


class GuardFileSection(Section):
    """``[guard]``: path of the ``*.guard.toml``, relative to the robot.toml."""

    path: StrictStr


class LoopSection(Section):
    """``[loop]``: ``rate_hz`` of commands; ``pace`` by the output device's own period ("device": one tick for each
    STATE) or by absolute deadlines on the monotonic clock ("clock"); ``realtime`` asks for SCHED_FIFO and locked
    memory."""

    rate_hz: Annotated[Number, Field(gt=0, le=20_000)]
    pace: Literal["device", "clock"] = "clock"
    realtime: StrictBool = False


class ConnectorSection(Section):
    """``[[input]]`` and ``[[output]]``: ``connector`` is a name from ``kizzasi-edge connectors``, ``fields`` maps
    our name (a model input, a signal of the guard's rules) to the connector's where they differ; the connector checks
    the other keys."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    connector: StrictStr
    name: StrictStr | None = None
    fields: Mapping[str, StrictStr] = {}

    @property
    def options(self) -> dict[str, Any]:
        """The keys that belong to the connector itself."""
        return dict(self.model_extra or {})


class InputSection(ConnectorSection):
    """``[[input]]``: ``stale_ms`` is the age at which its values no longer reach the model; ``None`` = never."""

    stale_ms: Annotated[Number, Field(gt=0)] | None = None


class OutputSection(ConnectorSection):
    """``[[output]]``: the actuators."""


class ControlSection(Section):
    """``[control]``: path of the control socket; default ``$XDG_RUNTIME_DIR`` or ``/run``, ``kizzasi-<robot>.sock``."""

    socket: StrictStr | None = None


class RecordSection(Section):
    """``[record]``: a ``.npz`` with every tick of the run; ``seconds`` of room, the newest are kept."""

    path: StrictStr
    seconds: Annotated[Number, Field(gt=0, le=86_400)] = 120


class RobotFile(Section):
    """A whole ``robot.toml``."""

    schema_: Annotated[Literal[1], Field(alias="schema")]
    robot: RobotSection
    model: ModelSection
    guard: GuardFileSection
    loop: LoopSection
    input: Annotated[list[InputSection], Field(min_length=1)]
    output: list[OutputSection] = []
    control: ControlSection = ControlSection()
    record: RecordSection | None = None


class RobotConfig:
    """A validated ``robot.toml``: ``path`` it came from, ``file`` its contents, and resolved paths."""

    def __init__(self, path: Path, file: RobotFile) -> None:
        self.path = path
        self.file = file

    def resolve(self, relative: str) -> Path:
        """A path of the file, relative to the file's own folder."""
        return (self.path.parent / relative).resolve()

    @property
    def socket(self) -> Path:
        """Where the control socket is."""
        declared = self.file.control.socket
        return self.resolve(declared) if declared else default_socket(self.file.robot.name)


def default_socket(robot: str) -> Path:
    """Default control socket of a robot of this name."""
    return Path(os.environ.get("XDG_RUNTIME_DIR") or "/run") / f"kizzasi-{robot}.sock"


def load_config(path: str | Path) -> RobotConfig:
    """Read and validate a ``robot.toml``. Raises :class:`ConfigError` naming file, section, key, found, expected."""
    path = Path(path)
    file = validate(read_toml(path, ConfigError), RobotFile, path, ConfigError)
    for section, name in (("model", file.model.path), ("guard", file.guard.path)):
        if not (path.parent / name).is_file():
            raise ConfigError(
                f"{path}: [{section}] path: found {name!r}; no such file as {(path.parent / name).resolve()}"
            )
    config = RobotConfig(path, file)
    for section, target in (
        ("control", config.socket),
        ("record", config.resolve(file.record.path) if file.record else None),
    ):
        if target is not None and not target.parent.is_dir():
            raise ConfigError(f"{path}: [{section}]: the folder {target.parent} of {target.name} does not exist")
    return config
