"""Reach a board through the program that holds its port: the control socket of ``kizzasi-edge run``.

The socket takes one JSON object a line, ``{"op": "estop"}``, and answers ``{"ok": true, …}`` or
``{"ok": false, "error": "…"}``. Several robots may run on one machine, so a socket found by its name is
used only if the process that listens on it is one that holds the port in question.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from pathlib import Path

from .errors import ConnectorError
from .serial_port import port_holders

__all__ = ["ask_holder", "control_socket_of"]

_TIMEOUT_S = 5.0


def control_socket_of(port: str) -> Path | None:
    """Control socket in the default folder whose owner holds ``port`` open; None if there is none."""
    holders = port_holders(port)
    folder = Path(os.environ.get("XDG_RUNTIME_DIR") or "/run")
    for path in sorted(folder.glob("kizzasi-*.sock")):
        try:
            with _connected(path) as client:
                credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:
            continue  # left behind by a run that was killed, or another user's
        if struct.unpack("3i", credentials)[0] in holders:
            return path
    return None


def ask_holder(path: Path, op: str) -> dict[str, object]:
    """Have the run behind the control socket ``path`` do ``op``; its answer.

    Raises:
        ConnectorError: nobody answers, or the run refuses (its own words).
    """
    try:
        with _connected(path) as client, client.makefile("rwb") as stream:
            stream.write(json.dumps({"op": op}).encode() + b"\n")
            stream.flush()
            answer = json.loads(stream.readline() or b'{"error": "it closed the connection"}')
    except (OSError, ValueError) as error:
        raise ConnectorError(f"{path}: no running robot answers ({error})") from error
    if not answer.pop("ok", False):
        raise ConnectorError(f"{path}: {op}: {answer.get('error', answer)}")
    return dict(answer)


def _connected(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(_TIMEOUT_S)
    try:
        client.connect(str(path))
    except OSError:
        client.close()
        raise
    return client
