"""The transport on Zenoh: what is on the wire, what arrives, what is counted, and what happens when others go."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from kizzasi_edge.errors import ConfigError, ConnectorError
from kizzasi_edge.ros2.qos import PRESETS, QosProfile
from kizzasi_edge.ros2.transport import MessageType

pytest.importorskip("zenoh", reason="the extra zenoh is not installed")
pytest.importorskip("xxhash", reason="the extra zenoh is not installed")

import xxhash
from zenoh_peer import COMMANDS_HASH, GID, attachment
from zenohrig import ARRAY, JOINT_STATE, Peer, connecting, free, joint_state, listening, opened, until

from kizzasi_edge.ros2.zenoh import Zenoh, release, shared
from kizzasi_edge.ros2.zenoh_domain import ZenohDomain

DEFAULT, LATCHED = PRESETS["default"], PRESETS["latched"]
STATE = joint_state(["a"], [1.0])


class Got:
    """What a subscription heard."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.stamps: list[int] = []
        self.threads: set[int] = set()

    def __call__(self, cdr: bytes, recv_ns: int) -> None:
        self.messages.append(cdr)
        self.stamps.append(recv_ns)
        self.threads.add(threading.get_ident())


def test_what_we_publish_is_what_the_document_says() -> None:
    """Against a peer with nothing of ours in it: keys, tokens, attachments."""
    domain = listening(node="gateway", enclave="/a")
    with opened(domain) as ours, Peer.beside("watch", domain) as watch, Peer.beside("read", domain) as reader:
        assert watch.said() == {"alive": True, "token": f"@ros2_lv/7/{ours.id}/0/0/NN/%a/%/gateway"}
        publication = ours.advertise("commands", ARRAY, QosProfile(reliability="best_effort", depth=1))
        token = (
            f"@ros2_lv/7/{ours.id}/0/1/MP/%a/%/gateway/%commands/std_msgs::msg::dds_::Float64MultiArray_/"
            f"{COMMANDS_HASH}/2::,1:,:,:,,"
        )
        assert watch.said() == {"alive": True, "token": token}
        until(lambda: publication.counters["subscribers"] == 1)
        before = time.time_ns()
        for payload in (b"one", b"", b"three"):
            assert publication.publish(payload)
        gid = xxhash.xxh3_128_digest(token.encode())[::-1]
        for number, payload in enumerate((b"one", b"", b"three"), 1):
            said = reader.said()
            attached = bytes.fromhex(said["attachment"])
            assert bytes.fromhex(said["payload"]) == payload
            assert len(attached) == 33
            assert attached[:8] == number.to_bytes(8, "little")
            assert before <= int.from_bytes(attached[8:16], "little") <= time.time_ns()
            assert attached[16:] == b"\x10" + gid
        assert publication.counters == {
            "sent": 3, "dropped": 0, "subscribers": 1, "connected": 2, "disconnected": 0,
        }  # fmt: skip
        reader.kill()
        until(lambda: not publication.counters["subscribers"] and publication.counters["disconnected"] == 1)
        publication.close()
        assert watch.said() == {"alive": False, "token": token}
        with pytest.raises(ConnectorError, match="/commands: the transport is closed"):
            publication.publish(b"")


def test_what_a_bare_peer_publishes_is_read_and_what_never_came_is_counted() -> None:
    got = Got()
    with opened(listening()) as ours, Peer.beside("write", ours.domain) as peer:
        subscription = ours.subscribe("/joint_states", JOINT_STATE, DEFAULT, got)
        until(lambda: subscription.counters["publishers"] == 1)
        start = time.monotonic_ns()
        peer.send(STATE, count=3)
        until(lambda: len(got.messages) == 3)
        peer.send(STATE, first=9, count=2)  # 4 to 8 never came
        until(lambda: len(got.messages) == 5)
        assert subscription.counters == {
            "received": 5, "failed": 0, "malformed": 0, "lost": 5, "publishers": 1, "connected": 1, "disconnected": 0,
        }  # fmt: skip
        assert set(got.messages) == {STATE}
        assert start < got.stamps[0] <= got.stamps[-1] < time.monotonic_ns()
        assert got.stamps == sorted(got.stamps)
        assert threading.get_ident() not in got.threads


def test_hostile_messages_change_nothing_but_a_count() -> None:
    got = Got()
    good = attachment(1)
    with opened(listening()) as ours, Peer.beside("write", ours.domain) as peer:
        subscription = ours.subscribe("joint_states", JOINT_STATE, DEFAULT, got)
        until(lambda: subscription.counters["publishers"] == 1)
        bad = [None, "", good[:-1].hex(), (good[:16] + b"\x0f" + GID).hex(), bytes(1 << 20).hex()]
        for count, attached in enumerate(bad, 1):
            peer.send(STATE, attachment=attached)
            until(lambda count=count: subscription.counters["malformed"] == count)
        peer.send(b"", attachment=(good + bytes(1000)).hex())  # an empty message is the decoder's to refuse
        until(lambda: len(got.messages) == 1)
        peer.send(bytes(8 << 20))
        until(lambda: len(got.messages) == 2)
        peer.send(STATE, first=2**63 - 1)
        until(lambda: len(got.messages) == 3)
        assert [len(message) for message in got.messages] == [0, 8 << 20, len(STATE)]
        assert subscription.counters["malformed"] == len(bad)


def test_a_callback_that_raises_is_counted() -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError

    with opened(listening()) as ours, Peer.beside("write", ours.domain) as peer:
        subscription = ours.subscribe("joint_states", JOINT_STATE, DEFAULT, broken)
        until(lambda: subscription.counters["publishers"])
        peer.send(STATE, count=2)
        until(lambda: subscription.counters["failed"] == 2)
        assert subscription.counters["received"] == 2


@pytest.mark.parametrize("qos", [LATCHED, QosProfile(reliability="best_effort", durability="transient_local", depth=1)])
def test_a_late_joiner_gets_the_latest(qos: QosProfile) -> None:
    """From ours to a bare one, from a bare one to ours, from ours to ours; and a volatile one does not ask for it."""
    late, volatile, own = Got(), Got(), Got()
    with opened(listening()) as ours, Peer.beside("write", ours.domain, "latched") as writer:
        publication = ours.advertise("commands", ARRAY, qos)
        publication.publish(b"old")
        publication.publish(b"new")
        with Peer.beside("read", ours.domain, "latched") as reader:
            said = reader.said()
            assert bytes.fromhex(said["payload"]) == b"new"
            assert bytes.fromhex(said["attachment"])[:8] == (2).to_bytes(8, "little")
        writer.send(STATE)
        writer.done()
        ours.subscribe("joint_states", JOINT_STATE, qos, late)
        ours.subscribe("joint_states", JOINT_STATE, DEFAULT, volatile)
        until(lambda: late.messages == [STATE])
        with opened(connecting(ours.domain)) as other:
            other.subscribe("commands", ARRAY, qos, own)
            until(lambda: own.messages == [b"new"])
        assert volatile.messages == []


def test_who_comes_first_does_not_matter() -> None:
    """A latched subscription that is there before its publisher, or comes with it, hears it once."""
    got = Got()
    with opened(listening()) as ours:
        subscription = ours.subscribe("commands", ARRAY, LATCHED, got)
        with opened(connecting(ours.domain)) as other:
            publication = other.advertise("commands", ARRAY, LATCHED)
            publication.publish(b"one")
            until(lambda: got.messages)
            until(lambda: subscription.counters["publishers"] == publication.counters["subscribers"] == 1)
            publication.publish(b"two")
            until(lambda: len(got.messages) == 2)
        time.sleep(0.1)
        assert got.messages == [b"one", b"two"]
        assert subscription.counters["lost"] == 0


@pytest.mark.parametrize("mode", ["peer", pytest.param("client", marks=pytest.mark.prove)])
def test_through_a_router_that_dies_and_comes_back(mode: str) -> None:
    port = free().rpartition(":")[2]
    at = f"tcp/127.0.0.1:{port}"
    got = Got()
    router = Peer("router", port)
    writer = Peer("write", "client", at, "none", "7")
    try:
        with opened(connecting(at, mode=mode)) as ours:
            subscription = ours.subscribe("joint_states", JOINT_STATE, DEFAULT, got)
            until(lambda: subscription.counters["publishers"] == 1)
            writer.send(STATE, count=100_000, rate_hz=200)
            until(lambda: len(got.messages) > 3)
            assert (subscription.counters["lost"], subscription.counters["connected"]) == (0, 1)
            router.kill()
            until(lambda: not subscription.counters["connected"] and subscription.counters["disconnected"] == 1)
            until(lambda: not subscription.counters["publishers"])
            count = len(got.messages)
            time.sleep(0.1)
            assert len(got.messages) == count
            router = Peer("router", port)
            until(lambda: len(got.messages) > count)
            until(lambda: subscription.counters["publishers"] == subscription.counters["connected"] == 1)
            assert subscription.counters["lost"] >= 10
            assert subscription.counters["disconnected"] == 1
    finally:
        writer.kill()
        router.kill()


def test_peers_that_a_router_brought_together_need_it_no_more() -> None:
    """As rmw_zenoh_cpp's nodes: each is told of the other, and they connect directly."""
    port = free().rpartition(":")[2]
    at, got = (f"tcp/127.0.0.1:{port}",), Got()
    router = Peer("router", port)
    try:
        with opened(ZenohDomain(7, connect=at)) as one, opened(ZenohDomain(7, connect=at, node="other")) as other:
            one.subscribe("t", ARRAY, DEFAULT, got)
            publication = other.advertise("t", ARRAY, DEFAULT)
            until(lambda: publication.counters["subscribers"] and publication.counters["connected"] == 2)
            router.kill()
            until(lambda: publication.counters["connected"] == 1)
            publication.publish(b"direct")
            until(lambda: got.messages)
    finally:
        router.kill()


def test_a_publisher_that_dies_is_seen() -> None:
    with opened(listening()) as ours, Peer.beside("write", ours.domain) as peer:
        subscription = ours.subscribe("joint_states", JOINT_STATE, DEFAULT, Got())
        until(lambda: subscription.counters["publishers"] == 1)
        peer.kill()
        until(lambda: not subscription.counters["publishers"] and subscription.counters["disconnected"] == 1)


@pytest.mark.parametrize("whole", [True, False])
def test_after_the_end_nothing_is_called(whole: bool) -> None:
    """In the middle of a stream, while a callback is at work."""
    ended = threading.Event()
    late: list[int] = []
    inside = threading.Event()

    def slow(cdr: bytes, recv_ns: int) -> None:
        inside.set()
        time.sleep(0.02)
        if ended.is_set():
            late.append(recv_ns)

    with opened(listening()) as ours, Peer.beside("write", ours.domain) as peer:
        subscription = ours.subscribe("joint_states", JOINT_STATE, DEFAULT, slow)
        until(lambda: subscription.counters["publishers"])
        peer.send(STATE, count=300)
        assert inside.wait(20)
        (ours if whole else subscription).close()
        ended.set()
        received = subscription.counters["received"]
        time.sleep(0.1)
        assert late == []
        assert subscription.counters["received"] == received
        assert subscription.counters["publishers"] == 0


def test_a_message_that_waited_for_the_end_is_not_handed_on() -> None:
    """A thread of Zenoh's may stand before the callback when it ends; here its message comes after that."""
    got, seen = Got(), []
    with opened(listening()) as ours:
        subscription = ours.subscribe("t", ARRAY, DEFAULT, got)
        watcher = ours.session.declare_subscriber(subscription.key, seen.append)
        ours.advertise("t", ARRAY, DEFAULT).publish(b"x")
        until(lambda: seen and got.messages)
        subscription.close()
        subscription._take(seen[0])
        watcher.undeclare()
    assert got.messages == [b"x"]


def test_a_process_that_forgets_to_close_ends_all_the_same() -> None:
    script = (
        "from zenohrig import ARRAY, listening\nfrom kizzasi_edge.ros2.qos import QosProfile\n"
        "from kizzasi_edge.ros2.zenoh import Zenoh\n"
        "transport = Zenoh(listening())\n"
        "transport.subscribe('t', ARRAY, QosProfile(), lambda *_: None)\n"
        "transport.advertise('t', ARRAY, QosProfile()).publish(b'x')"
    )
    subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parent, check=True, timeout=30)


def test_a_subscription_may_end_itself() -> None:
    with opened(listening()) as ours, Peer.beside("write", ours.domain) as peer:
        subscription = ours.subscribe("joint_states", JOINT_STATE, DEFAULT, lambda *_: subscription.close())
        until(lambda: subscription.counters["publishers"])
        peer.send(STATE, count=3)
        until(lambda: subscription.counters["received"])
        time.sleep(0.05)
        assert subscription.counters["received"] == 1


def test_publish_waits_for_nobody() -> None:
    with opened(listening()) as ours, Peer.beside("read", ours.domain) as reader:
        publication = ours.advertise("commands", ARRAY, QosProfile(history="keep_all"))
        until(lambda: publication.counters["subscribers"])
        reader.process.send_signal(signal.SIGSTOP)
        took = []
        for _ in range(20_000):  # 20 MB: more than every buffer between
            start = time.perf_counter()
            publication.publish(bytes(1000))
            took.append(time.perf_counter() - start)
        assert sorted(took)[-200] < 0.002
        assert max(took) < 2  # Zenoh itself gives up a connection after 5 s
        assert publication.counters["disconnected"] == 0
        reader.process.send_signal(signal.SIGCONT)


def test_domains_types_and_their_versions_are_apart() -> None:
    got = Got()
    with opened(listening()) as ours, opened(connecting(ours.domain, id=8)) as elsewhere:
        ours.subscribe("t", JOINT_STATE, DEFAULT, got)
        other_version = MessageType(JOINT_STATE.name, "RIHS01_00", {})
        publications = [
            elsewhere.advertise("t", JOINT_STATE, DEFAULT),
            ours.advertise("t", ARRAY, DEFAULT),
            ours.advertise("t", other_version, DEFAULT),
            ours.advertise("/x/t", JOINT_STATE, DEFAULT),
        ]
        same = ours.advertise("t", JOINT_STATE, DEFAULT)
        until(lambda: same.counters["subscribers"] == 1)
        for publication in publications:
            publication.publish(b"no")
            assert publication.counters["subscribers"] == 0
        same.publish(b"yes")
        until(lambda: got.messages)
        assert got.messages == [b"yes"]


def test_a_type_without_a_hash_cannot_be_named_but_in_humble() -> None:
    nameless = MessageType("x_msgs/msg/Wide", "", {})
    with opened(listening()) as ours, pytest.raises(ConnectorError, match="x_msgs/msg/Wide has no RIHS01 hash"):
        ours.subscribe("t", nameless, DEFAULT, Got())
    with opened(listening(distro="humble")) as ours:
        key = ours.subscribe("t", nameless, DEFAULT, Got()).key
        assert key == "7/t/x_msgs::msg::dds_::Wide_/TypeHashNotSupported"


def test_equal_settings_share_a_session() -> None:
    domain = listening()
    one, two = shared(domain), shared(domain)
    assert one is two
    release(one)
    assert not one.session.is_closed()
    release(two)
    assert one.session.is_closed()
    with pytest.raises(ConnectorError, match="t: the transport is closed"):
        one.advertise("t", ARRAY, DEFAULT)


def test_what_cannot_be_opened_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConnectorError) as error:
        Zenoh(connecting(free(), mode="client"))
    assert "mode client" in str(error.value)
    assert "Unable to connect" in str(error.value)
    assert "cargo" not in str(error.value)
    with opened(listening()) as ours, pytest.raises(ConnectorError, match=r"listen tcp/127\.0\.0\.1"):
        Zenoh(ours.domain)
    (tmp_path / "z.json5").write_text("{ mode: 'pear' }")
    with pytest.raises(ConfigError, match=r"z\.json5"):
        Zenoh(ZenohDomain(file=str(tmp_path / "z.json5")))


def test_a_file_and_the_variable_configure_the_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "z.json5").write_text(f"{{ mode: 'peer', listen: {{ endpoints: ['{free()}'] }} }}")
    at = free()
    monkeypatch.setenv("ZENOH_CONFIG_OVERRIDE", f'listen/endpoints=["{at}"];scouting/multicast/enabled=false')
    got = Got()
    with opened(ZenohDomain(7, file=str(tmp_path / "z.json5"), connect=())) as ours:
        monkeypatch.delenv("ZENOH_CONFIG_OVERRIDE")
        ours.subscribe("t", ARRAY, DEFAULT, got)
        with opened(connecting(at)) as other:
            publication = other.advertise("t", ARRAY, DEFAULT)
            until(lambda: publication.counters["subscribers"])
            publication.publish(b"x")
            until(lambda: got.messages)
    monkeypatch.setenv("ZENOH_CONFIG_OVERRIDE", "no/such/key=1")
    with pytest.raises(ConfigError, match="no/such/key"):
        Zenoh(listening())
