"""What `kizzasi-export train` can train, by the name in ``[task] name``.

A task is a function ``run(data: dict, config: TrainConfig, *, resume: bool, progress: bool) -> TaskResult``:
`data` is the parsed ``[data]`` section, which the task validates itself. Modules load only when asked for.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from kizzasi_edge.errors import ConfigError
from kizzasi_export.checkpoint import ExportSpec
from kizzasi_export.config import TrainConfig
from kizzasi_export.models import StepModel
from kizzasi_export.train import FitResult

__all__ = ["TASKS", "ExportSpec", "Task", "TaskResult", "load_task"]


@dataclass(frozen=True)
class TaskResult:
    """What a task hands back: the trained model, how to export it, the last fit, and figures to report.

    `data` describes the data for the manifest and `origin` where the weights started (JSON values); `summary` is shown
    to the user, label → text.
    """

    model: StepModel
    export: ExportSpec
    fit: FitResult
    data: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, str] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)


class Task(Protocol):
    """The signature of a task function."""

    def __call__(self, data: dict[str, Any], config: TrainConfig, *, resume: bool, progress: bool) -> TaskResult: ...


TASKS: dict[str, str] = {
    "arm": "kizzasi_export.tasks.arm:run",
    "supervised": "kizzasi_export.tasks.supervised:run",
}


def load_task(config: TrainConfig) -> Task:
    """The task that `config` names.

    Raises:
        ConfigError: an unknown name.
    """
    name = config.task.name
    if name not in TASKS:
        raise ConfigError(f"{config.path}: [task] name: found {name!r}, expected one of {', '.join(TASKS)}")
    module, _, function = TASKS[name].partition(":")
    return cast(Task, getattr(importlib.import_module(module), function))
