"""CDR bytes over DDS between processes; the other one shares no code with ours."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from dataclasses import replace
from typing import Any

import pytest

from kizzasi_edge.errors import ConfigError, ConnectorError
from kizzasi_edge.ros2.qos import PRESETS, QosProfile
from kizzasi_edge.ros2.transport import MessageType

pytest.importorskip("cyclonedds", reason="the extra dds is not installed")

import numpy as np
from cyclonedds.builtin import (
    BuiltinDataReader,
    BuiltinTopicDcpsParticipant,
    BuiltinTopicDcpsPublication,
    BuiltinTopicDcpsSubscription,
)
from cyclonedds.core import Policy, Qos
from cyclonedds.domain import DomainParticipant
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from dds_peer import XCDR1, DiagnosticStatus, JointState, ParticipantEntitiesInfo
from dds_stream import RELIABLE, TWO, numbers_of, stream
from ddsrig import ARRAY, JOINT_STATE, MESSAGES, Peer, fresh_domain, joint_state, until
from rosbags.interfaces import Nodetype

from kizzasi_edge.ros2.dds import Dds
from kizzasi_edge.ros2.dds_types import carrier


def test_a_kilohertz_from_another_process() -> None:
    stream(0.5)


def test_what_we_publish_is_read_by_others() -> None:
    types = MESSAGES.store.types
    layout = types["std_msgs/msg/MultiArrayLayout"]([], 0)
    with fresh_domain() as domain, Peer(domain, "read", "commands") as peer:
        transport = Dds(domain)
        publication = transport.advertise("commands", ARRAY, PRESETS["default"])
        peer.matched()
        until(lambda: publication.counters["subscribers"] == 1)
        for data in ([1.0, 2.0, 3.0], [], [math.pi]):
            message = types[ARRAY.name](layout, np.array(data))
            assert publication.publish(bytes(MESSAGES.store.serialize_cdr(message, ARRAY.name)))
            assert json.loads(peer.out.readline()) == data
        assert publication.counters == {"sent": 3, "dropped": 0, "subscribers": 1}
        with pytest.raises(ConnectorError, match="Float64MultiArray"):
            publication.publish(b"\0\1\0\0\xff\xff\xff\x7f")
        transport.close()
        with pytest.raises(ConnectorError, match="closed"):
            publication.publish(b"\0\1\0\0")


def test_a_publisher_that_dies_is_missed() -> None:
    got: list[Any] = []
    with fresh_domain() as domain, Peer(domain, "write", "joint_states") as peer:
        transport = Dds(domain)
        transport.subscribe("joint_states", JOINT_STATE, RELIABLE, lambda *it: got.append(it))
        peer.matched()
        peer.send(**TWO, count=100_000, rate_hz=200)
        until(lambda: len(got) > 20)
        peer.kill()  # no farewell: only its lease, 10 s, tells DDS; ours is the age of what came last
        until(lambda: time.monotonic_ns() - got[-1][1] > 300_000_000)
        transport.close()


def test_late_joiners_get_the_latched_message_and_nobody_else_does() -> None:
    with fresh_domain() as domain:
        ours, late = Dds(domain), Dds(replace(domain, node="late"))
        latched = ours.advertise("description", JOINT_STATE, PRESETS["latched"])
        for names in ("old", "new"):
            latched.publish(joint_state([names], [0.0]))
        kept: list[bytes] = []
        missed: list[bytes] = []
        late.subscribe("description", JOINT_STATE, PRESETS["latched"], lambda cdr, _: kept.append(cdr))
        late.subscribe("description", JOINT_STATE, PRESETS["default"], lambda cdr, _: missed.append(cdr))
        until(lambda: kept and latched.counters["subscribers"] == 2)
        time.sleep(0.1)
        assert [JointState.deserialize(cdr).name for cdr in kept] == [["new"]]
        assert missed == []
        late.close()
        ours.close()


def test_a_callback_that_raises_is_counted_and_the_next_message_comes() -> None:
    got: list[str] = []

    def on_message(cdr: bytes, _: int) -> None:
        name = JointState.deserialize(cdr).name[0]
        if name == "bad":
            raise RuntimeError(name)
        got.append(name)

    with fresh_domain() as domain:
        ours, other = Dds(domain), Dds(replace(domain, node="other"))
        subscription = ours.subscribe("t", JOINT_STATE, RELIABLE, on_message)
        publication = other.advertise("t", JOINT_STATE, RELIABLE)
        until(lambda: publication.counters["subscribers"])
        for name in ("good", "bad", "better"):
            publication.publish(joint_state([name], [0.0]))
        until(lambda: len(got) == 2)
        assert got == ["good", "better"]
        assert subscription.counters == {"received": 3, "failed": 1, "publishers": 1}
        other.close()  # says farewell, which is no message
        until(lambda: not subscription.counters["publishers"])
        other = Dds(replace(domain, node="next"))
        publication = other.advertise("t", JOINT_STATE, RELIABLE)
        until(lambda: publication.counters["subscribers"])
        publication.publish(joint_state(["best"], [0.0]))
        until(lambda: len(got) == 3)
        assert subscription.counters == {"received": 4, "failed": 1, "publishers": 1}
        subscription.close()
        subscription.close()
        until(lambda: not publication.counters["subscribers"])
        publication.publish(joint_state(["good"], [0.0]))
        time.sleep(0.1)
        assert len(got) == 3
        other.close()
        ours.close()


@pytest.mark.parametrize("more", [["lossy"], ["best_effort", "lossy"]])
def test_what_the_network_loses(more: list[str]) -> None:
    """A fifth of all packets. Reliable: sent again, in order. Best effort: gone, the rest in order."""
    n, got = 300, []
    qos = RELIABLE if more == ["lossy"] else replace(RELIABLE, reliability="best_effort")
    with fresh_domain() as domain, Peer(domain, "write", "joint_states", *more) as peer:
        transport = Dds(domain)
        subscription = transport.subscribe("joint_states", JOINT_STATE, qos, lambda *it: got.append(it))
        peer.matched()
        until(lambda: subscription.counters["publishers"] == 1)
        peer.send(**TWO, count=n)
        if qos is RELIABLE:
            until(lambda: len(got) == n)
        peer.done()
        time.sleep(0.1)
        numbers = numbers_of(got)
        assert numbers == sorted(set(numbers))
        assert (len(numbers) == n) == (qos is RELIABLE)
        assert len(numbers) > n // 2
        transport.close()


def test_how_the_process_appears_in_the_graph() -> None:
    """USER_DATA and ros_discovery_info, read by a participant that knows only DDS."""
    with fresh_domain() as domain:
        transport = Dds(replace(domain, node="arm_policy", namespace="/left"))
        reads = transport.subscribe("joint_states", JOINT_STATE, PRESETS["sensor_data"], lambda *_: None)
        other = DomainParticipant(domain.id)
        policies = Qos(Policy.Reliability.Reliable(0), Policy.Durability.TransientLocal, Policy.History.KeepAll, XCDR1)
        topic = Topic(other, "ros_discovery_info", ParticipantEntitiesInfo)
        reader: DataReader[Any] = DataReader(other, topic, qos=policies)

        def latest() -> Any:
            samples = [sample for sample in reader.take(N=100) if sample.sample_info.valid_data]
            return samples[-1] if samples else None

        (node,) = until(latest).node_entities_info_seq
        assert [bytes(gid.data) for gid in node.reader_gid_seq] == [reads.guid]
        assert list(node.writer_gid_seq) == []
        writes = transport.advertise("/commands", ARRAY, PRESETS["default"])
        said = until(latest)
        assert bytes(said.gid.data) == transport.participant.guid.bytes
        (node,) = said.node_entities_info_seq
        assert (node.node_namespace, node.node_name) == ("/left", "arm_policy")
        assert [bytes(gid.data) for gid in node.reader_gid_seq] == [reads.guid]
        assert [bytes(gid.data) for gid in node.writer_gid_seq] == [writes.guid]

        def seen(topic: Any) -> dict[bytes, Any]:
            return {sample.key.bytes: sample for sample in BuiltinDataReader(other, topic).read(N=100)}

        participant = seen(BuiltinTopicDcpsParticipant)[transport.participant.guid.bytes]
        assert participant.qos[Policy.Userdata].data == b"enclave=/;"
        written = seen(BuiltinTopicDcpsPublication)[writes.guid]
        read = seen(BuiltinTopicDcpsSubscription)[reads.guid]
        assert (written.topic_name, written.type_name) == ("rt/commands", "std_msgs::msg::dds_::Float64MultiArray_")
        assert (read.topic_name, read.type_name) == ("rt/left/joint_states", "sensor_msgs::msg::dds_::JointState_")
        for end, kind in ((written, ARRAY), (read, JOINT_STATE)):
            assert end.qos[Policy.Userdata].data == f"typehash={kind.hash};".encode()
            assert not end.qos[Policy.DataRepresentation].use_xcdrv2_representation
        writes.close()
        until(lambda: [s for s in reader.take(N=9) if not s.node_entities_info_seq[0].writer_gid_seq])
        transport.close()


@pytest.mark.parametrize(("distro", "gid_bytes"), [("humble", 24), ("jazzy", 16)])
def test_the_introduction_is_of_the_graphs_version(distro: str, gid_bytes: int) -> None:
    """Its bytes, decoded by rosbags with that distribution's types."""
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(getattr(Stores, f"ROS2_{distro.upper()}"))
    name = "rmw_dds_common/msg/ParticipantEntitiesInfo"
    with fresh_domain(distro=distro) as domain:
        transport, other = Dds(domain), Dds(replace(domain, node="other"))
        writes = transport.advertise("commands", ARRAY, PRESETS["default"])
        got: list[bytes] = []
        kind = MessageType(name, "", store.fielddefs)
        reader: DataReader[Any] = DataReader(
            other.participant,
            Topic(other.participant, "ros_discovery_info", carrier(kind)),
            qos=Qos(Policy.Reliability.Reliable(0), Policy.Durability.TransientLocal, Policy.History.KeepAll, XCDR1),
        )
        until(lambda: got.extend(sample.cdr for sample in reader.take(N=9)) or len(got) >= 2)
        said: Any = [store.deserialize_cdr(cdr, name) for cdr in got]
        mine = [s for s in said if bytes(s.gid.data[:16]) == transport.participant.guid.bytes][-1]
        assert len(mine.gid.data) == gid_bytes
        (node,) = mine.node_entities_info_seq
        assert (node.node_namespace, node.node_name) == ("/", "kizzasi_edge")
        assert bytes(node.writer_gid_seq[0].data) == writes.guid.ljust(gid_bytes, b"\0")
        other.close()
        transport.close()


def test_types_dds_cannot_carry() -> None:
    with pytest.raises(ConfigError, match=r"no_such/msg/Type.*whose definition is known"):
        carrier(MessageType("no_such/msg/Type", "", {}))
    wide = MESSAGES.store.fielddefs | {"x/msg/Wide": ([], [("text", (Nodetype.BASE, ("wstring", 0)))])}
    with pytest.raises(ConfigError, match="x/msg/Wide text: found 'wstring'"):
        carrier(MessageType("x/msg/Wide", "", wide))


def test_a_byte_is_a_uint8_as_in_rmw() -> None:
    with fresh_domain() as domain:
        transport, other = Dds(domain), Dds(replace(domain, node="other"))
        writes = transport.advertise("status", MESSAGES.type("diagnostic_msgs/msg/DiagnosticStatus"), RELIABLE)
        reader: DataReader[Any] = DataReader(
            other.participant, Topic(other.participant, "rt/status", DiagnosticStatus), qos=Qos(XCDR1)
        )
        until(lambda: writes.counters["subscribers"] == 1)
        assert reader
        other.close()
        transport.close()


def test_a_process_that_only_waits_uses_no_time() -> None:
    with fresh_domain() as domain:
        transport = Dds(domain)
        transport.subscribe("quiet", JOINT_STATE, RELIABLE, lambda *_: None)
        time.sleep(0.2)
        before = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - before < 0.1
        transport.close()


def test_a_stopped_reader_process_does_not_hold_up_a_reliable_writer() -> None:
    cdr = bytes(
        MESSAGES.store.serialize_cdr(
            MESSAGES.store.types[ARRAY.name](
                MESSAGES.store.types["std_msgs/msg/MultiArrayLayout"]([], 0), np.ones(1000)
            ),
            ARRAY.name,
        )
    )
    with fresh_domain() as domain, Peer(domain, "read", "commands") as peer:
        transport = Dds(domain)
        publication = transport.advertise("commands", ARRAY, PRESETS["default"])
        keeping = transport.advertise("commands", ARRAY, QosProfile(history="keep_all"))
        peer.matched()
        until(lambda: publication.counters["subscribers"] and keeping.counters["subscribers"])
        os.kill(peer.process.pid, signal.SIGSTOP)
        longest = 0.0
        for end in (publication, keeping):
            for _ in range(500):
                before = time.monotonic()
                end.publish(cdr)
                longest = max(longest, time.monotonic() - before)
        assert longest < 0.5, longest
        assert publication.counters["dropped"] == 0
        assert keeping.counters["dropped"] > 0  # it may not forget, and may not wait
        os.kill(peer.process.pid, signal.SIGCONT)
        transport.close()
