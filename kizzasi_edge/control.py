"""The operator's way in: a Unix socket (mode 0600) that takes one JSON request a line (CONTRACT §6).

Request ``{"op": "status"}`` (or arm, disarm, estop, clear, reset_state, and stop, which disarms and ends the run);
answer ``{"ok": true, …}`` or ``{"ok": false, "error": "…"}``.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kizzasi_edge.config import default_socket
from kizzasi_edge.errors import ConnectorError, KizzasiError

Handler = Callable[[], Mapping[str, Any]]

MAX_REQUEST = 1024
CLIENT_TIMEOUT_S = 2.0


class ControlServer:
    """Serves requests on its own threads; ``handlers`` maps each operation to what does it.

    Each client has a thread, so that an ``estop`` waits neither for a silent client nor for an ``arm`` under way.
    """

    def __init__(self, path: Path, handlers: Mapping[str, Handler]) -> None:
        self.path = path
        self._handlers = handlers
        self._socket = _listen(path)
        self._thread = threading.Thread(target=self._serve, name="control", daemon=True)

    def __enter__(self) -> ControlServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(1.0)
        self.path.unlink(missing_ok=True)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), name="control-client", daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(CLIENT_TIMEOUT_S)
            with connection.makefile("rwb") as stream:
                while line := stream.readline(MAX_REQUEST):
                    stream.write(json.dumps(self._answer(line)).encode() + b"\n")
                    stream.flush()

    def _answer(self, line: bytes) -> Mapping[str, Any]:
        try:
            request = json.loads(line)
            op = request.get("op") if isinstance(request, dict) else None
        except (ValueError, RecursionError):
            op = None
        handler = self._handlers.get(op) if isinstance(op, str) else None
        if handler is None:
            return {"ok": False, "error": f"found {line[:80]!r}; expected an op of {sorted(self._handlers)}"}
        try:
            return {"ok": True, **handler()}
        except KizzasiError as exc:
            return {"ok": False, "error": str(exc)}


def request(path: Path, op: str, timeout_s: float = 5.0) -> dict[str, Any]:
    """Send one operation. Raises :class:`ConnectorError` when nobody answers, or with the robot's own refusal."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(timeout_s)
            client.connect(str(path))
            with client.makefile("rwb") as stream:
                stream.write(json.dumps({"op": op}).encode() + b"\n")
                stream.flush()
                line = stream.readline()
    except OSError as exc:
        raise ConnectorError(f"{path}: no running robot answers ({exc}); start one with `kizzasi-edge run`") from None
    try:
        answer: dict[str, Any] = json.loads(line or b'{"ok": false, "error": "the robot closed the connection"}')
        accepted = answer.pop("ok")
    except (ValueError, KeyError, AttributeError):
        raise ConnectorError(f"{path}: what answers there is no robot: {line[:80]!r}") from None
    if not accepted:
        raise ConnectorError(f"{op}: {answer['error']}")
    return answer


def find_socket() -> Path:
    """The only control socket in its default folder. Raises :class:`ConnectorError` when there is none, or several."""
    pattern = default_socket("*")
    found = sorted(pattern.parent.glob(pattern.name))
    if len(found) != 1:
        raise ConnectorError(
            f"{pattern}: found {[str(path) for path in found] or 'no control socket'}; expected one, or say --socket"
        )
    return found[0]


def _listen(path: Path) -> socket.socket:
    if path.exists():
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise ConnectorError(f"{path}: is a file, expected a free path for the control socket")
        if _is_served(path):
            raise ConnectorError(
                f"{path}: another robot answers on this control socket; stop it, or set [control] socket"
            )
        path.unlink(missing_ok=True)  # left behind by a run that was killed
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        server.bind(str(path))
    except OSError as exc:
        server.close()
        raise ConnectorError(
            f"{path}: the control socket cannot be created: {exc.strerror or exc}; set [control] socket"
        ) from None
    finally:
        os.umask(mask)
    server.listen(4)
    return server


def _is_served(path: Path) -> bool:
    """Whether a process listens there, be it too busy to answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(0.5)
        try:
            client.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True
