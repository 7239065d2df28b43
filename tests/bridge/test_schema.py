"""The table a board carries: what may stand in it, what older boards leave out, and how two of them differ."""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import replace

import pytest

from kizzasi_bridge import WireError
from kizzasi_bridge.schema import Channel, Schema, Sensor

ARM = Schema(
    "arm",
    1000,
    (
        Channel("a/position", zero=12, scale=-(2.0**-21)),
        Channel("b/velocity", "m", -7, 1e-6, "velocity"),
        Channel("c/effort", "N·m", 0, -0.001, "torque"),
    ),
    (
        Sensor("a/position", zero=12, scale=-(2.0**-21), channel=0),
        Sensor("b/position", "m", -7, 1e-6, 1),
        Sensor("c/position", "rad", 99, math.tau / 4096, 2),
        Sensor("supply", "V", 3, 0.01),
    ),
)


def packed(table: object) -> bytes:
    return zlib.compress(json.dumps(table).encode())


def table() -> dict[str, object]:
    return json.loads(zlib.decompress(ARM.to_bytes()))


def test_every_field_comes_back():
    assert Schema.from_bytes(ARM.to_bytes()) == ARM


def test_a_board_from_before_types_takes_positions():
    old = Schema.positions(("a", "b"), scale=2.0**-21)
    data = json.loads(zlib.decompress(old.to_bytes()))
    for channel in data["channels"]:
        assert channel.pop("type") == "position"
    assert Schema.from_bytes(packed(data)) == old


@pytest.mark.parametrize(
    ("kind", "index", "key", "value", "words"),
    [
        ("channels", 0, "type", "effort", "channel 'a/position': type = 'effort'"),
        ("channels", 0, "scale", 0.0, "channel 'a/position': zero = 12, scale = 0.0"),
        ("channels", 0, "scale", math.inf, "scale = inf"),
        ("sensors", 3, "scale", math.nan, "sensor 'supply': zero = 3, scale = nan"),
        ("sensors", 3, "zero", 2**31, "zero = 2147483648"),
        ("sensors", 3, "zero", True, "zero = True"),
        ("sensors", 3, "scale", 10**400, "too large"),
        ("sensors", 0, "channel", 1, "sensor 'a/position' measures channel 1; expected 0, its own place"),
        ("channels", 2, "zero", 5, "torque channel 'c/effort': zero = 5, expected 0"),
        ("sensors", 0, "zero", 13, "zero = 13, scale = -4.76837158203125e-07; expected 12 and -4.76837158203125e-07"),
        ("sensors", 1, "scale", 2e-6, "expected -7 and 1e-06 of the velocity channel 'b/velocity' it measures"),
    ],
)
def test_what_no_board_can_mean_is_refused(kind: str, index: int, key: str, value: object, words: str):
    data = table()
    data[kind][index][key] = value  # type: ignore[index]
    with pytest.raises(WireError) as error:
        Schema.from_bytes(packed(data))
    assert words in str(error.value)


def test_a_torque_channels_sensor_has_a_scale_of_its_own():
    other = replace(ARM.sensors[2], zero=5, scale=1.0)
    assert replace(ARM, sensors=(*ARM.sensors[:2], other, ARM.sensors[3])).sensors[2] == other


def test_differences_are_named_one_by_one():
    assert ARM.differences(ARM) == []
    other = replace(
        ARM,
        tick_us=500,
        channels=(*ARM.channels[:2], replace(ARM.channels[2], unit="N", scale=2.0)),
        sensors=(*ARM.sensors[:3], replace(ARM.sensors[3], zero=4)),
    )
    assert ARM.differences(other) == [
        "tick_us: 1000, not 500",
        "channel 'c/effort': unit 'N·m', not 'N'",
        "channel 'c/effort': scale -0.001, not 2.0",
        "sensor 'supply': zero 3, not 4",
    ]
    fewer = replace(ARM, sensors=ARM.sensors[:3])
    names = ["a/position", "b/position", "c/position"]
    assert ARM.differences(fewer) == [f"sensors: {[*names, 'supply']}, not {names}"]
    retyped = replace(
        ARM, channels=(*ARM.channels[:2], replace(ARM.channels[2], type="position", zero=99, scale=math.tau / 4096))
    )
    assert "channel 'c/effort': type 'torque', not 'position'" in ARM.differences(retyped)
