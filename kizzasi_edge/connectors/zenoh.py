"""ROS 2 topics of nodes that run with rmw_zenoh_cpp, without ROS. Experimental."""

from __future__ import annotations

from pathlib import Path

from kizzasi_edge.connectors.topic_commands import TopicCommands, TopicCommandsOptions
from kizzasi_edge.connectors.topic_source import TopicSource, TopicSourceOptions
from kizzasi_edge.ros2.extra import ZenohAccess
from kizzasi_edge.ros2.zenoh_domain import ZenohSection


class ZenohCommandsOptions(TopicCommandsOptions, ZenohSection):
    """What is commanded, and where its nodes are found."""


class ZenohCommands(TopicCommands):
    """``connector = "zenoh"`` of an ``[[output]]``."""

    Options = ZenohCommandsOptions

    def __init__(self, options: ZenohCommandsOptions, base: Path) -> None:
        super().__init__(options, base, ZenohAccess(options.settings(base)))


class ZenohOptions(TopicSourceOptions, ZenohSection):
    """What is read, and where its nodes are found."""


class ZenohTopic(TopicSource):
    """``connector = "zenoh"`` of an ``[[input]]``."""

    Options = ZenohOptions
    Output = ZenohCommands

    def __init__(self, options: ZenohOptions, base: Path) -> None:
        super().__init__(options, base, ZenohAccess(options.settings(base)))
