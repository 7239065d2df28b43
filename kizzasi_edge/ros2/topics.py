"""What robot.toml says about one topic: the same keys for every transport and for bags, in and out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field, StrictStr, model_validator

from kizzasi_edge.errors import ConfigError
from kizzasi_edge.ros2.channels import Channel
from kizzasi_edge.ros2.names import TOPIC, TYPE
from kizzasi_edge.ros2.qos import QosSection
from kizzasi_edge.toml_file import Section


class TopicChannels(Section):
    """A topic and what of it is used.

    Attributes:
        topic: ``/joint_states``.
        channels: our name → channel (``"elbow/position" = "/joint_states:position[elbow]"``), as in ``[data]`` of a
            train.toml. Of an input they are all that it offers; without them it offers what its first message holds.
            Of an output they say where in the message each of the guard's outputs goes; types with a place for joints
            need none.
        rename: our name of a joint → its name in the messages, where they differ; not beside ``channels``.
        definitions: ``.msg`` and ``.idl`` files, or folders of them, of types that do not come with ROS; relative to
            the robot.toml.
    """

    topic: Annotated[StrictStr, Field(pattern=TOPIC.pattern)]
    channels: Mapping[StrictStr, StrictStr] = {}
    rename: Mapping[StrictStr, StrictStr] = {}
    definitions: list[StrictStr] = []

    @model_validator(mode="after")
    def _channels_are_of_this_topic(self) -> Self:
        topic_channels(self.channels, self.topic)
        return self

    @model_validator(mode="after")
    def _renamed_joints_stay_apart(self) -> Self:
        if len(set(self.rename.values())) != len(self.rename):
            raise ValueError(
                f"rename: found {dict(self.rename)}; expected another joint of the robot's for each of ours"
            )
        if self.rename and self.channels:
            raise ValueError("rename: found beside channels, which name the robot's joints themselves; expected one")
        return self


class TopicOptions(TopicChannels):
    """A topic that is subscribed to or published: besides, its ``type`` (``sensor_msgs/msg/JointState``), and ``qos``,
    a preset's name or a table."""

    type: Annotated[StrictStr, Field(pattern=TYPE.pattern)]
    qos: QosSection = QosSection()


def topic_channels(channels: Mapping[str, str], topic: str) -> dict[str, Channel]:
    """Our name → channel. Raises ValueError for a text that is no channel, or one of another topic."""
    found = {}
    for name, text in channels.items():
        try:
            found[name] = Channel.parse(text, "channels")
        except ConfigError as exc:
            raise ValueError(str(exc)) from None
        if found[name].topic.lstrip("/") != topic.lstrip("/"):
            raise ValueError(f"channels of topic {topic!r}; found {text!r} for {name!r}")
    return found
