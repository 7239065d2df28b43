"""ROS 2 topics over DDS, without ROS."""

from __future__ import annotations

from pathlib import Path

from kizzasi_edge.connectors.topic_commands import TopicCommands, TopicCommandsOptions
from kizzasi_edge.connectors.topic_source import TopicSource, TopicSourceOptions
from kizzasi_edge.ros2.dds_domain import DomainSection
from kizzasi_edge.ros2.extra import DdsAccess


class DdsCommandsOptions(TopicCommandsOptions, DomainSection):
    """What is commanded, and the domain it is in."""


class DdsCommands(TopicCommands):
    """``connector = "dds"`` of an ``[[output]]``."""

    Options = DdsCommandsOptions

    def __init__(self, options: DdsCommandsOptions, base: Path) -> None:
        super().__init__(options, base, DdsAccess(options.settings()))


class DdsOptions(TopicSourceOptions, DomainSection):
    """What is read, and the domain it is in."""


class DdsTopic(TopicSource):
    """``connector = "dds"`` of an ``[[input]]``."""

    Options = DdsOptions
    Output = DdsCommands

    def __init__(self, options: DdsOptions, base: Path) -> None:
        super().__init__(options, base, DdsAccess(options.settings()))
