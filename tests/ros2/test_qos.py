"""QoS: ROS's presets, overrides by key, and which offers satisfy which requests, as DDS itself decides."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from kizzasi_edge.errors import ConfigError
from kizzasi_edge.ros2.inproc import InProc
from kizzasi_edge.ros2.qos import PRESETS, QosProfile, QosSection, mismatches
from kizzasi_edge.toml_file import Section, validate

pytest.importorskip("cyclonedds", reason="the extra dds is not installed")

from ddsrig import JOINT_STATE, fresh_domain

from kizzasi_edge.ros2.dds import Dds
from kizzasi_edge.ros2.dds_qos import endpoint_qos, profile_of


class Topic(Section):
    qos: QosSection = QosSection()


def parsed(qos: Any) -> QosProfile:
    return validate({"qos": qos}, Topic, "robot.toml", ConfigError).qos.profile


@pytest.mark.parametrize(
    ("name", "expected"),  # rmw/qos_profiles.h
    [
        ("sensor_data", ("best_effort", "volatile", "keep_last", 5)),
        ("default", ("reliable", "volatile", "keep_last", 10)),
        ("services_default", ("reliable", "volatile", "keep_last", 10)),
        ("parameters", ("reliable", "volatile", "keep_last", 1000)),
        ("parameter_events", ("reliable", "volatile", "keep_last", 1000)),
        ("system_default", ("reliable", "volatile", "keep_last", 1)),
        ("latched", ("reliable", "transient_local", "keep_last", 1)),
        ("clock", ("best_effort", "volatile", "keep_last", 1)),
        ("rosout", ("reliable", "transient_local", "keep_last", 1000)),
    ],
)
def test_presets_are_ros_own(name: str, expected: tuple[Any, ...]) -> None:
    found = parsed(name)
    assert (found.reliability, found.durability, found.history, found.depth) == expected
    assert (found.deadline_s, found.liveliness, found.lease_s) == (None, "automatic", None)
    assert found.lifespan_s == (10.0 if name == "rosout" else None)
    assert set(PRESETS) == set(QosSection.model_fields["preset"].annotation.__args__)  # type: ignore[union-attr]


def test_a_table_overrides_a_preset() -> None:
    found = parsed({"preset": "sensor_data", "reliability": "reliable", "depth": 3, "deadline_s": 0.1, "lease_s": 2})
    assert found == replace(PRESETS["sensor_data"], reliability="reliable", depth=3, deadline_s=0.1, lease_s=2.0)
    assert parsed({"history": "keep_all"}) == replace(PRESETS["default"], history="keep_all")


@pytest.mark.parametrize(
    ("qos", "said"),
    [
        ("fast", ["[qos] preset", "'fast'", "'sensor_data'"]),
        ({"depth": 0}, ["[qos] depth", "found 0", "greater than or equal to 1"]),
        ({"reliability": "sometimes"}, ["[qos] reliability", "'reliable' or 'best_effort'"]),
        ({"deadline_s": -1}, ["[qos] deadline_s", "found -1"]),
        ({"lifespan_s": float("inf")}, ["[qos] lifespan_s", "finite"]),
        ({"hz": 3}, ["[qos] hz", "unknown key", "'lease_s'"]),
        ({"history": "keep_all", "depth": 5}, ["qos", "depth only with history = 'keep_last'"]),
    ],
)
def test_errors_name_the_key(qos: Any, said: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        parsed(qos)
    for text in ("robot.toml", *said):
        assert text in str(error.value)


def test_a_profile_survives_the_wire() -> None:
    told = QosProfile("reliable", "transient_local", deadline_s=0.5, liveliness="manual_by_topic", lease_s=2.0)
    for profile in (told, QosProfile(), PRESETS["sensor_data"]):
        assert replace(profile_of(endpoint_qos(profile, "")), depth=profile.depth) == profile


OFFERS = [
    QosProfile(reliability, durability)
    for reliability, durability in product(("best_effort", "reliable"), ("volatile", "transient_local"))
] + [
    QosProfile(deadline_s=0.5),
    QosProfile(deadline_s=2.0),
    QosProfile(lease_s=0.5),
    QosProfile(lease_s=2.0),
    QosProfile(liveliness="manual_by_topic", lease_s=0.5),
    QosProfile(history="keep_all", lifespan_s=1.0),
]


def test_mismatches_are_those_of_dds() -> None:
    """Each offer with each request, a topic of its own for each pair, in one domain."""
    with fresh_domain() as domain:
        writers, readers = Dds(domain), Dds(replace(domain, node="reader"))
        inproc = InProc()
        pairs = []
        for i, (offered, requested) in enumerate(product(OFFERS, OFFERS)):
            written = writers.advertise(f"t{i}", JOINT_STATE, offered)
            read = readers.subscribe(f"t{i}", JOINT_STATE, requested, lambda *_: None)
            inproc.subscribe(f"t{i}", JOINT_STATE, requested, lambda *_: None)
            near = inproc.advertise(f"t{i}", JOINT_STATE, offered)
            pairs.append((offered, requested, written, read, near))
        for offered, requested, written, read, near in pairs:
            expected = int(not mismatches(offered, requested))
            assert written.counters["subscribers"] == expected, (offered, requested)
            assert read.counters["publishers"] == expected, (offered, requested)
            assert near.counters["subscribers"] == expected
        assert 20 < sum(written.counters["subscribers"] for *_, written, _, _ in pairs) < 80
        writers.close()
        readers.close()
