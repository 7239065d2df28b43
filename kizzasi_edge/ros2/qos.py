"""Quality of service as ROS 2 names it: presets, overrides by key, and which offer satisfies which request."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StrictInt, model_validator

from kizzasi_edge.toml_file import Number, Section

Reliability = Literal["reliable", "best_effort"]
Durability = Literal["volatile", "transient_local"]
History = Literal["keep_last", "keep_all"]
Liveliness = Literal["automatic", "manual_by_topic"]


@dataclass(frozen=True)
class QosProfile:
    """One endpoint's policies. Durations in seconds; ``None``: not asked for (infinite)."""

    reliability: Reliability = "reliable"
    durability: Durability = "volatile"
    history: History = "keep_last"
    depth: int = 10
    deadline_s: float | None = None
    lifespan_s: float | None = None
    liveliness: Liveliness = "automatic"
    lease_s: float | None = None


PRESETS: dict[str, QosProfile] = {
    "default": QosProfile(),
    "sensor_data": QosProfile(reliability="best_effort", depth=5),
    "services_default": QosProfile(),
    "parameters": QosProfile(depth=1000),
    "parameter_events": QosProfile(depth=1000),
    "system_default": QosProfile(depth=1),
    "latched": QosProfile(durability="transient_local", depth=1),
    "clock": QosProfile(reliability="best_effort", depth=1),
    "rosout": QosProfile(durability="transient_local", depth=1000, lifespan_s=10.0),
}
"""The profiles of rmw/qos_profiles.h; ``system_default`` as rmw_cyclonedds_cpp resolves it; ``latched``: the latest
message for whoever comes later."""

Preset = Literal[
    "default",
    "sensor_data",
    "services_default",
    "parameters",
    "parameter_events",
    "system_default",
    "latched",
    "clock",
    "rosout",
]
Seconds = Annotated[Number, Field(gt=0, le=86_400, allow_inf_nan=False)]


class QosSection(Section):
    """``qos`` of a topic: a preset, and the policies that differ from it. ``qos = "sensor_data"`` alone is a preset.

    Asking a publisher for a deadline, liveliness or lease that it does not offer means no match at all; an input's
    ``stale_ms`` finds a silent publisher without asking it for anything."""

    preset: Preset = "default"
    reliability: Reliability | None = None
    durability: Durability | None = None
    history: History | None = None
    depth: Annotated[StrictInt, Field(ge=1, le=100_000)] | None = None
    deadline_s: Seconds | None = None
    lifespan_s: Seconds | None = None
    liveliness: Liveliness | None = None
    lease_s: Seconds | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"preset": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _depth_has_a_meaning(self) -> Self:
        if self.profile.history == "keep_all" and self.depth is not None:
            raise ValueError("depth only with history = 'keep_last'")
        return self

    @property
    def profile(self) -> QosProfile:
        """The preset with what was overridden."""
        given = {key: getattr(self, key) for key in QosProfile.__dataclass_fields__}
        return replace(PRESETS[self.preset], **{key: value for key, value in given.items() if value is not None})


def mismatches(offered: QosProfile, requested: QosProfile) -> list[str]:
    """Why a writer that offers this and a reader that requests that do not match, a line for each policy; [] if they
    do. History, depth and lifespan never keep two endpoints apart."""
    found = []
    if requested.reliability == "reliable" and offered.reliability == "best_effort":
        found.append("reliability: the publisher offers best_effort, the subscription requests reliable")
    if requested.durability == "transient_local" and offered.durability == "volatile":
        found.append("durability: the publisher offers volatile, the subscription requests transient_local")
    if requested.liveliness == "manual_by_topic" and offered.liveliness == "automatic":
        found.append("liveliness: the publisher offers automatic, the subscription requests manual_by_topic")
    for key, what in (("deadline_s", "deadline"), ("lease_s", "liveliness lease")):
        asked, given = getattr(requested, key), getattr(offered, key)
        if asked is not None and (given is None or given > asked):
            promise = "none" if given is None else f"{given:g} s"
            found.append(f"{what}: the publisher offers {promise}, the subscription requests at most {asked:g} s")
    return found
