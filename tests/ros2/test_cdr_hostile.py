"""Messages that lie: refused by name, never a crash, and never more memory than there are bytes."""

from __future__ import annotations

import contextlib
import struct
import time
import tracemalloc
from collections.abc import Callable

import pytest
from hostile_cdr import Judge, fuzz
from hypothesis import given, settings
from hypothesis import strategies as st
from messages_in_use import KINDS, KNOWN, MESSAGES, TREES, golden, joint_state

from kizzasi_edge.errors import WireError
from kizzasi_edge.ros2 import cdr, structure
from kizzasi_edge.ros2.codec import Decoder
from kizzasi_edge.ros2.messages import Messages

JOINTS = "sensor_msgs/msg/JointState"
HUGE = struct.pack("<I", 0xFFFF_FFFF)


def word_at(data: bytes, at: int, word: bytes) -> bytes:
    return data[:at] + word + data[at + 4 :]


def wrong(data: bytes, name: str = JOINTS) -> str:
    """What is said about these bytes, by the slow way and by the quick one."""
    with pytest.raises(WireError) as slow:
        cdr.loads(TREES[name], data)
    reader = Decoder(KINDS[name], "/t")
    for _ in range(2):
        with pytest.raises(WireError) as quick:
            reader.decode(data)
        assert str(quick.value) == str(slow.value)
    return str(slow.value)


def test_every_cut_is_refused() -> None:
    for name in MESSAGES:
        for order in "<>":
            whole = golden(name, order)
            reader = Decoder(KINDS[name], "/t")
            for length in range(len(whole)):
                with pytest.raises(WireError):
                    cdr.loads(TREES[name], whole[:length])
                with pytest.raises(WireError):
                    reader.decode(whole[:length])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: b"", "found 0 bytes; expected at least the 4 of the header"),
        (lambda d: d[:7], "header.stamp.sec at byte 4: found the message ends after 7 bytes; expected 4 bytes here"),
        (lambda d: b"\0\3" + d[2:], "encapsulation 0003 is PL_CDR; expected 0000 or 0001, plain XCDR1"),
        (lambda d: b"\0\2" + d[2:], "encapsulation 0002 is PL_CDR"),
        (lambda d: b"\0\7" + d[2:], "encapsulation 0007 is XCDR2;"),
        (lambda d: b"\0\x09" + d[2:], "encapsulation 0009 is XCDR2 (delimited)"),
        (lambda d: b"\0\x0b" + d[2:], "encapsulation 000b is XCDR2 (parameter list)"),
        (lambda d: b"\1\1" + d[2:], "encapsulation 0101 is no XCDR1"),
        (lambda d: word_at(d, 12, HUGE), "header.frame_id at byte 16: found a text of 4294967295 bytes; only"),
        (lambda d: word_at(d, 24, HUGE), "name at byte 28: found 4294967295 elements; only"),
        (lambda d: d[:-4] + HUGE, "effort at byte 132: found"),
        (lambda d: d + b"\0\0\0\0", "4 bytes left behind the last field"),
        (lambda d: d[:16] + b"\xff" + d[17:], "header.frame_id at byte 21: found a text that is no UTF-8"),
        (lambda d: d[:20] + b"x" + d[21:], "header.frame_id at byte 21: found a text of 4 bytes; expected a NUL"),
    ],
)
def test_lies_are_named(change: Callable[[bytes], bytes], said: str) -> None:
    data = joint_state(["a", "bc"], position=[1, 2], velocity=[3, 4], effort=[])
    changed = change(data)
    if said.startswith("effort"):
        said = said.split(" at")[0]
    assert said in wrong(changed)


def test_bounds_of_a_type_are_kept(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("p") / "p" / "msg"
    folder.mkdir(parents=True)
    (folder / "A.msg").write_text("int16[<=2] few\nstring<=3 short\n")
    node = structure.tree(Messages([folder]).type("p/A"))
    good = cdr.dumps(node, {"few": [1, 2], "short": "abc"})
    assert cdr.loads(node, good).short == "abc"
    with pytest.raises(WireError, match="few: found 3 elements; expected at most 2"):
        cdr.dumps(node, {"few": [1, 2, 3]})
    with pytest.raises(WireError, match="a text without NUL of at most 3 bytes"):
        cdr.dumps(node, {"short": "abcd"})
    with pytest.raises(WireError, match="few at byte 8: found 3 elements; expected at most 2"):
        cdr.loads(node, word_at(good, 4, struct.pack("<I", 3)))
    longer = good[:12] + struct.pack("<I", 5) + b"abcd\0"
    with pytest.raises(WireError, match="found a text of 4 bytes; expected at most 3 bytes"):
        cdr.loads(node, longer)


def peak(work: Callable[[], object]) -> int:
    """Bytes of memory at the worst moment."""
    tracemalloc.start()
    try:
        with contextlib.suppress(WireError):
            work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_claimed_length_costs_nothing() -> None:
    """Every word of every message replaced by the largest claims: no memory beyond a few times the message."""
    for name in MESSAGES:
        whole = golden(name, "<")
        reader = Decoder(KINDS[name], "/t")
        for claim in (0xFFFF_FFFF, 0x00FF_FFFF):
            for at in range(4, len(whole) - 3, 4):
                lie = word_at(whole, at, struct.pack("<I", claim))
                assert peak(lambda node=TREES[name], lie=lie: cdr.loads(node, lie)) < 40_000
                assert peak(lambda reader=reader, lie=lie: reader.decode(lie)) < 80_000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("diagnostic_msgs/msg/DiagnosticArray", {"status": [{}] * 1_000}),
        ("trajectory_msgs/msg/JointTrajectory", {"joint_names": [""] * 5_000}),
        ("trajectory_msgs/msg/JointTrajectory", {"points": [{}] * 1_000}),
        ("std_msgs/msg/Float64MultiArray", {"data": [0.0] * 20_000}),
    ],
)
def test_memory_goes_with_the_message(name: str, value: dict[str, object]) -> None:
    """The densest that a message can be: so many objects of Python for its bytes, and no more."""
    data = cdr.dumps(TREES[name], value)
    reader = Decoder(KINDS[name], "/t")
    assert peak(lambda: cdr.parse(TREES[name], data)) < 60 * len(data)
    assert peak(lambda: reader.decode(data)) < 120 * len(data)


def test_time_goes_with_the_message() -> None:
    """Very many joints, the last two of one name; more numbers than anybody means."""
    names = [*map(str, range(22_000)), "21999"]
    data, zeros = joint_state(names, position=[0.0] * len(names)), [0.0] * 22_000
    began = time.process_time()
    with pytest.raises(WireError, match="found the name '21999' twice"):
        Decoder(KINDS[JOINTS], "/t").decode(data)
    assert time.process_time() - began < 2
    with pytest.raises(WireError, match="more than 65536 numbers"):
        Decoder(KINDS[JOINTS], "/t").decode(joint_state(names[:-1], position=zeros, velocity=zeros, effort=zeros))


def test_a_known_form_costs_its_values() -> None:
    """tracemalloc sees numpy's memory: 36 doubles and the objects around them."""
    names = [f"joint_{i}" for i in range(12)]
    data = joint_state(names, position=[1.0] * 12, velocity=[2.0] * 12, effort=[3.0] * 12)
    reader = Decoder(KINDS[JOINTS], "/t")
    reader.decode(data)
    reader.decode(data)
    assert peak(lambda: reader.decode(data)) < 2048


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(list(MESSAGES)))
def test_arbitrary_bytes(data: bytes, name: str) -> None:
    JUDGES[name].check(data)
    JUDGES[name].check(b"\0\1\0\0" + data)


JUDGES = {name: Judge(name) for name in MESSAGES}
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=9)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(TEXT, max_size=6, unique=True),
    st.lists(st.floats(width=64), min_size=6, max_size=6),
    TEXT,
    st.sampled_from("<>"),
)
def test_any_joint_state_is_read_as_rosbags_reads_it(
    names: list[str], values: list[float], frame: str, order: str
) -> None:
    value = {
        "header": {"stamp": {"sec": 1, "nanosec": 2}, "frame_id": frame},
        "name": names,
        "position": values[: len(names)],
    }
    data = cdr.dumps(TREES[JOINTS], value, order)
    theirs = KNOWN.store.deserialize_cdr(data, JOINTS)
    assert (theirs.name, theirs.position.tobytes()) == (names, cdr.loads(TREES[JOINTS], data).position.tobytes())
    if names:
        sample = SHARED.decode(data)
        shown = dict(zip(sample.names, sample.values.tolist(), strict=True))
        fresh = Decoder(KINDS[JOINTS], "/t").decode(data)
        assert fresh.values.tobytes() == theirs.position.astype(float).tobytes()
        for name, number in zip(names, theirs.position.tolist(), strict=True):
            if (key := f"{name}/position") in shown:
                assert struct.pack("d", shown[key]) == struct.pack("d", number)


SHARED = Decoder(KINDS[JOINTS], "/t")


def test_mutations() -> None:
    found = fuzz(seed=1, count=1_500)
    assert min(found.values()) > 150, found
