"""docs/protocol.md, protocol.py and the C tables say the same thing, byte for byte."""

from __future__ import annotations

import re
from enum import IntEnum
from pathlib import Path

import pytest
from kizzasi_bridge._kz_core import lib

from kizzasi_bridge import Decoder, encode
from kizzasi_bridge.protocol import (
    Ack,
    AckResult,
    Arm,
    ChannelLimits,
    Clear,
    Command,
    Fault,
    FaultReport,
    Hello,
    Limits,
    Log,
    MsgType,
    NodeState,
    ResetCause,
    SchemaData,
    SchemaGet,
    State,
    StopCategory,
    TimeRequest,
    TimeResponse,
)
from kizzasi_bridge.schema import CHANNEL_TYPES

DOC = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
SCHEMA_HASH = 0xC0FFEE01
LIMITS = Limits((ChannelLimits(-1000, 1000, 50, 3),), 2000, 3, 100, 500)
EXAMPLES: dict[str, bytes] = {
    "HELLO_REQ": bytes([1, 0]),
    "HELLO": Hello(1, 1, 0, NodeState.INIT, 120, 0x11223344, SCHEMA_HASH, 0, 0xA1B2C3D4, 0).pack(),
    "SCHEMA_GET": SchemaGet(0, 238).pack(),
    "SCHEMA_DATA": SchemaData(0, b"\x78\xda").pack(),
    "LIMITS": LIMITS.channel_payloads()[0],
    "LIMITS_COMMIT": LIMITS.commit_payload(SCHEMA_HASH),
    "ACK": Ack(MsgType.ARM, AckResult.OK, 1, 0x5E55104E).pack(),
    "ARM": Arm(0xA1B2C3D4, LIMITS.hash(SCHEMA_HASH)).pack(),
    "DISARM": b"",
    "CLEAR": Clear(0xA1B2C3D4).pack(),
    "STATE": State(2, 0, 0, 1, 0xA1B2C3D4, 0x5E55104E, 7, 1, 50_000, 0, 0, 2, 0, (150, 148)).pack(),
    "COMMAND": Command(0x5E55104E, 50_000, 100, (200,)).pack(),
    "HEARTBEAT": b"",
    "ESTOP": b"",
    "FAULT": FaultReport(7, "hot").pack(),
    "LOG": Log(4, "slow").pack(),
    "TIME_REQ": TimeRequest(9).pack(),
    "TIME_RSP": TimeResponse(9, 50_000).pack(),
}
FROM_DEVICE = {"HELLO", "SCHEMA_DATA", "ACK", "STATE", "LOG", "TIME_RSP"}


def example(name: str) -> bytes:
    """The frame that the page shows: seq 1; from the host t_us 0, from the device t_us 50000 and mode ARMED."""
    device = name in FROM_DEVICE
    return encode(MsgType[name], EXAMPLES[name], seq=1, t_us=50_000 if device else 0, flags=0x12 if device else 0x10)


def test_every_type_has_an_example() -> None:
    assert set(EXAMPLES) == {m.name for m in MsgType}


@pytest.mark.parametrize("name", EXAMPLES)
def test_worked_hex_dump(name: str) -> None:
    found = re.search(rf"^### {MsgType[name]} {name}$.*?```\n(.*?)```", DOC, re.S | re.M)
    assert found, f"docs/protocol.md has no dump of {name}"
    frame = example(name)
    assert bytes.fromhex(found[1]) == frame
    (decoded,) = Decoder().feed(frame)
    assert decoded.payload == EXAMPLES[name]


@pytest.mark.parametrize(
    ("prefix", "codes"),
    [
        ("KZ_MSG_", MsgType),
        ("KZ_STATE_", NodeState),
        ("KZ_FAULT_", Fault),
        ("KZ_ACK_", AckResult),
        ("KZ_RESET_", ResetCause),
        ("KZ_STOP_", StopCategory),
        ("KZ_MODE_", IntEnum("Mode", [name.upper() for name in CHANNEL_TYPES], start=0)),
    ],
)
def test_c_and_python_and_page_share_their_numbers(prefix: str, codes: type[IntEnum]) -> None:
    in_c = {n.removeprefix(prefix): getattr(lib, n) for n in dir(lib) if n.startswith(prefix)}
    assert in_c == {c.name: c.value for c in codes}
    for c in codes:
        assert re.search(rf"\b{c.value} {c.name}\b", DOC), f"docs/protocol.md lacks {c.value} {c.name}"


def test_what_the_node_sends_is_what_python_packs(node) -> None:  # type: ignore[no-untyped-def]
    frames = node.tick(2)
    frames += node.armed().tick(2)
    frames += node.send(MsgType.TIME_REQ, TimeRequest(5).pack())
    frames += node.send(MsgType.SCHEMA_GET, SchemaGet(3, 20).pack())
    frames += node.send(MsgType.DISARM)
    readers = {
        MsgType.HELLO: Hello,
        MsgType.STATE: State,
        MsgType.TIME_RSP: TimeResponse,
        MsgType.SCHEMA_DATA: SchemaData,
        MsgType.ACK: Ack,
    }
    assert {f.type for f in frames} == set(readers)
    for frame in frames:
        assert readers[MsgType(frame.type)].unpack(frame.payload).pack() == frame.payload


def test_lengths_on_the_page() -> None:
    for name, payload in EXAMPLES.items():
        if name in ("HELLO", "LIMITS", "LIMITS_COMMIT", "ACK", "ARM", "CLEAR", "TIME_REQ", "TIME_RSP", "SCHEMA_GET"):
            section = DOC.split(f"### {MsgType[name]} {name}\n")[1].split("###")[0]
            assert f"{len(payload)} B" in section, name
