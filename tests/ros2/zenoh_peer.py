"""A process at the other end, written without our code from rmw_zenoh's design document alone.

    python zenoh_peer.py router PORT
    python zenoh_peer.py write|read MODE CONNECT LISTEN DOMAIN [latched]
    python zenoh_peer.py watch MODE CONNECT LISTEN DOMAIN

CONNECT and LISTEN: a locator, or "none". ``write`` (/joint_states, a sensor_msgs/JointState) takes one JSON object per
line: ``payload`` (hex), and optionally ``count``, ``first`` (number of the first message), ``rate_hz``, ``attachment``
(hex in place of its own; null: none), and begins once somebody subscribes, or if latched at once. ``read`` (/commands,
a std_msgs/Float64MultiArray) prints each message's ``payload`` and ``attachment``; ``watch`` the liveliness tokens that
come and go. All print "ready" first.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any

import zenoh
from zenoh import ext

STATES = "joint_states/sensor_msgs::msg::dds_::JointState_"
STATES_HASH = "RIHS01_a13ee3a330e346c9d87b5aa18d24e11690752bd33a0350f11c5882bc9179260e"
COMMANDS = "commands/std_msgs::msg::dds_::Float64MultiArray_"
COMMANDS_HASH = "RIHS01_1025ddc6b9552d191f89ef1a8d2f60f3d373e28b283d8891ddcc974e8c55397f"
GID = bytes(range(16))


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def open_session(mode: str, connect: str, listen: str) -> Any:
    config = zenoh.Config()
    config.insert_json5("mode", json.dumps(mode))
    config.insert_json5("connect/endpoints", json.dumps([connect] if connect != "none" else []))
    config.insert_json5("listen/endpoints", json.dumps([listen] if listen != "none" else []))
    config.insert_json5("scouting/multicast/enabled", "false")
    config.insert_json5("scouting/gossip/enabled", json.dumps(mode == "router"))
    config.insert_json5("timestamping/enabled", "true")
    return zenoh.open(config)


def token(session: Any, domain: str, number: int, kind: str, end: str) -> Any:
    """``end``: what follows the node's name in an endpoint's token."""
    return session.liveliness().declare_token(f"@ros2_lv/{domain}/{session.zid()}/0/{number}/{kind}/%/%/bare{end}")


def attachment(number: int) -> bytes:
    stamp = time.time_ns()
    return number.to_bytes(8, "little", signed=True) + stamp.to_bytes(8, "little", signed=True) + b"\x10" + GID


def write(session: Any, domain: str, latched: bool) -> None:
    key = f"{domain}/{STATES}/{STATES_HASH}"
    if latched:
        publisher = ext.declare_advanced_publisher(
            session, key, cache=ext.CacheConfig(max_samples=1), publisher_detection=True
        )
    else:
        publisher = session.declare_publisher(key, congestion_control=zenoh.CongestionControl.BLOCK)
    end = f"/%joint_states/sensor_msgs::msg::dds_::JointState_/{STATES_HASH}/:{'1' if latched else ''}:,1:,:,:,,"
    tokens = [token(session, domain, 0, "NN", ""), token(session, domain, 1, "MP", end)]
    while not (latched or publisher.matching_status.matching):
        time.sleep(0.005)
    number = 1
    for line in sys.stdin:
        order = json.loads(line)
        number = order.get("first", number)
        due = time.monotonic_ns()
        for _ in range(order.get("count", 1)):
            mine = attachment(number)
            if "attachment" in order:
                mine = None if order["attachment"] is None else bytes.fromhex(order["attachment"])
            publisher.put(bytes.fromhex(order["payload"]), attachment=mine)
            number += 1
            due += round(1e9 / order.get("rate_hz", 1000))
            time.sleep(max(due - time.monotonic_ns(), 0) * 1e-9)
        say("done")
    del tokens


def read(session: Any, domain: str, latched: bool) -> None:
    def got(sample: Any) -> None:
        attached = "" if sample.attachment is None else bytes(sample.attachment).hex()
        say(json.dumps({"payload": bytes(sample.payload).hex(), "attachment": attached}))

    key = f"{domain}/{COMMANDS}/{COMMANDS_HASH}"
    if latched:
        history = ext.HistoryConfig(detect_late_publishers=True, max_samples=1)
        subscriber = ext.declare_advanced_subscriber(session, key, got, history=history, subscriber_detection=True)
    else:
        subscriber = session.declare_subscriber(key, got)
    end = f"/%commands/std_msgs::msg::dds_::Float64MultiArray_/{COMMANDS_HASH}/:{'1' if latched else ''}:,1:,:,:,,"
    tokens = [token(session, domain, 0, "NN", ""), token(session, domain, 1, "MS", end)]
    threading.Event().wait()
    del subscriber, tokens


def watch(session: Any, domain: str) -> None:
    def changed(sample: Any) -> None:
        say(json.dumps({"alive": sample.kind == zenoh.SampleKind.PUT, "token": str(sample.key_expr)}))

    subscriber = session.liveliness().declare_subscriber(f"@ros2_lv/{domain}/**", changed, history=True)
    threading.Event().wait()
    del subscriber


def orphaned() -> None:
    """Zenoh's threads keep a process whose test is gone."""
    while os.getppid() != 1:
        time.sleep(0.5)
    os._exit(1)


def main() -> None:
    threading.Thread(target=orphaned, daemon=True).start()
    role, *rest = sys.argv[1:]
    if role == "router":
        session = open_session("router", "none", f"tcp/127.0.0.1:{rest[0]}")
        say("ready")
        threading.Event().wait()
    mode, connect, listen, domain, *more = rest
    session = open_session(mode, connect, listen)
    say("ready")
    if role == "watch":
        watch(session, domain)
    {"write": write, "read": read}[role](session, domain, "latched" in more)


if __name__ == "__main__":
    main()
