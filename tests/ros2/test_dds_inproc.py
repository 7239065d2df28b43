"""The transport inside one process: what DDS does, without DDS."""

from __future__ import annotations

import time

import pytest
from ddsrig import ARRAY, JOINT_STATE, joint_state

from kizzasi_edge.errors import ConnectorError
from kizzasi_edge.ros2.inproc import InProc
from kizzasi_edge.ros2.qos import PRESETS

DEFAULT, LATCHED = PRESETS["default"], PRESETS["latched"]


def test_messages_reach_whom_they_would_reach_over_dds() -> None:
    transport, got = InProc("/arm"), []
    subscription = transport.subscribe("/arm/joint_states", JOINT_STATE, DEFAULT, lambda *it: got.append(it))
    transport.subscribe("joint_states", ARRAY, DEFAULT, lambda *_: pytest.fail("another type"))
    transport.subscribe("/joint_states", JOINT_STATE, DEFAULT, lambda *_: pytest.fail("another topic"))
    publication = transport.advertise("joint_states", JOINT_STATE, DEFAULT)
    before = time.monotonic_ns()
    assert publication.publish(joint_state(["a"], [1.0]))
    ((cdr, stamp),) = got
    assert cdr == joint_state(["a"], [1.0])
    assert before <= stamp <= time.monotonic_ns()
    assert publication.counters == {"sent": 1, "dropped": 0, "subscribers": 1}
    assert subscription.counters == {"received": 1, "failed": 0, "publishers": 1}
    subscription.close()
    subscription.close()
    publication.publish(cdr)
    assert len(got) == 1
    publication.close()
    with pytest.raises(ConnectorError, match="/arm/joint_states"):
        publication.publish(cdr)


def test_the_latest_message_is_kept_for_late_joiners_who_ask_for_it() -> None:
    transport = InProc()
    publication = transport.advertise("t", JOINT_STATE, LATCHED)
    for name in ("old", "new"):
        publication.publish(joint_state([name], [0.0]))
    got: list[bytes] = []
    transport.subscribe("t", JOINT_STATE, LATCHED, lambda cdr, _: got.append(cdr))
    transport.subscribe("t", JOINT_STATE, DEFAULT, lambda *_: pytest.fail("it did not ask"))
    assert got == [joint_state(["new"], [0.0])]


def test_a_callback_that_raises_holds_up_nobody() -> None:
    transport, got = InProc(), []
    bad = transport.subscribe("t", JOINT_STATE, DEFAULT, lambda *_: 1 / 0)  # type: ignore[arg-type, return-value]
    transport.subscribe("t", JOINT_STATE, DEFAULT, lambda cdr, _: got.append(cdr))
    publication = transport.advertise("t", JOINT_STATE, DEFAULT)
    publication.publish(b"")
    assert bad.counters["failed"] == 1
    assert got == [b""]
    transport.close()
    with pytest.raises(ConnectorError):
        publication.publish(b"")
