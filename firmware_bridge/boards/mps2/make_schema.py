"""Prints the board's calibration table as the C header that main.c includes."""

from __future__ import annotations

import sys

from kizzasi_bridge.schema import Schema


def header(schema: Schema) -> str:
    """The compressed table as a C array."""
    data = schema.to_bytes()
    rows = [", ".join(f"0x{b:02x}" for b in data[i : i + 16]) for i in range(0, len(data), 16)]
    body = ",\n    ".join(rows)
    return f"#include <stdint.h>\n\nstatic const uint8_t schema[{len(data)}] = {{\n    {body}}};\n"


if __name__ == "__main__":
    count, tick_us = map(int, sys.argv[1:])
    joints = tuple(f"joint{i + 1}" for i in range(count))
    sys.stdout.write(header(Schema.positions(joints, scale=2.0**-21, board="mps2", tick_us=tick_us)))
