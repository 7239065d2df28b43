"""``[data]`` of a train.toml: where recordings come from and which of their channels are inputs and outputs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kizzasi_edge.toml_file import Section

Format = Literal["numpy", "csv", "parquet", "lerobot", "rosbag", "generated"]
System = Literal["lorenz", "mackey_glass", "pendulum", "teleoperation", "narma10", "selective_recall", "delay_copy"]


class DataSection(Section):
    """``[data]``; `open_streams` refuses keys that the format does not use. docs/datasets.md shows each format.

    Channels are chosen by column name (``"q"``), element of a vector column (``"state[elbow]"``, ``"state[2]"``),
    or field of a topic (``"/joint_states:position[elbow]"``); a vector without an element gives all its elements.

    Attributes:
        format: None goes by the file ending, or by what the folder holds.
        path: file, folder or glob pattern, or several; relative to the train.toml.
        inputs, outputs: channels of x and y, in order.
        channels: of bags: our name → field of a topic, as an input of a robot.toml has it; the names are the model's.
        weight: column of weights ≥ 0 for the loss.
        horizon: y at a step holds the outputs this many steps later.
        time, time_unit: column of times and the unit of its numbers (default s); timestamps have their own.
        episode: column whose value changes where a new recording begins.
        resample: hold the latest values on a regular grid at the export's rate, instead of requiring that rate.
        max_gap_s: how old a held value may be; a recording is split where nothing came for longer.
        window, stride: steps per training window and from one to the next; None: whole recordings, no overlap.
        system, recordings, steps, seed: of ``format = "generated"``.
        noise: on the generated inputs, as a share of each channel's standard deviation.
        lag: steps that a generated memory task bridges (``selective_recall``: at least).
    """

    format: Format | None = None
    path: str | list[str] | None = None
    inputs: list[str] | None = Field(default=None, min_length=1)
    outputs: list[str] | None = Field(default=None, min_length=1)
    channels: dict[str, str] = Field(default={})
    weight: str | None = None
    horizon: int = Field(default=0, ge=0)
    time: str | None = None
    time_unit: Literal["s", "ms", "us", "ns"] | None = None
    episode: str | None = None
    resample: bool = False
    max_gap_s: float | None = Field(default=None, gt=0)
    window: int | None = Field(default=None, ge=1)
    stride: int | None = Field(default=None, ge=1)
    system: System | None = None
    recordings: int = Field(default=64, ge=1)
    steps: int = Field(default=512, ge=2)
    seed: int = Field(default=0, ge=0)
    noise: float = Field(default=0.01, ge=0, allow_inf_nan=False)
    lag: int = Field(default=16, ge=1)
