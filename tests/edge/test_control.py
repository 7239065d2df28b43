"""The operator's socket."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kizzasi_edge.config import default_socket
from kizzasi_edge.control import ControlServer, find_socket, request
from kizzasi_edge.errors import ConnectorError


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("c") / "s"


def refuse() -> Mapping[str, Any]:
    raise ConnectorError("the board says no")


@pytest.fixture
def slow() -> threading.Event:
    """Set it to let `arm` return."""
    return threading.Event()


@pytest.fixture
def server(place: Path, slow: threading.Event) -> Iterator[ControlServer]:
    def arm() -> Mapping[str, Any]:
        slow.wait(5)
        return {}

    handlers = {"status": lambda: {"state": "READY"}, "clear": refuse, "arm": arm, "estop": lambda: {"done": True}}
    with ControlServer(place, handlers) as server:
        yield server
        slow.set()


def connect(place: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(5)
    client.connect(str(place))
    return client


def test_answers_and_refuses(server: ControlServer, place: Path) -> None:
    assert request(place, "status") == {"state": "READY"}
    with pytest.raises(ConnectorError, match="clear: the board says no"):
        request(place, "clear")
    with pytest.raises(ConnectorError, match=r"expected an op of .*status"):
        request(place, "explode")


def test_only_its_owner_may_use_it(server: ControlServer, place: Path) -> None:
    assert stat.S_IMODE(place.stat().st_mode) == 0o600


def test_the_umask_is_left_alone(place: Path) -> None:
    mask = os.umask(0o022)
    with ControlServer(place, {}):
        assert os.umask(mask) == 0o022


def test_the_socket_vanishes_with_its_server(place: Path) -> None:
    with ControlServer(place, {}):
        assert place.exists()
    assert not place.exists()
    with pytest.raises(ConnectorError, match=r"no running robot answers .*kizzasi-edge run"):
        request(place, "status")


@pytest.mark.parametrize(
    "line",
    [b"\n", b"status\n", b"[]\n", b"{}\n", b'{"op": 3}\n', b'{"op": ["status"]}\n', b"\xff\xfe\n", b"[" * 1000 + b"\n",
     b'{"op": "__class__"}\n', b"x" * 5000 + b"\n"],
)  # fmt: skip
def test_bad_requests_are_answered_and_harmless(server: ControlServer, place: Path, line: bytes) -> None:
    with closing(connect(place)) as client, client.makefile("rwb") as stream:
        stream.write(line)
        stream.flush()
        answer = json.loads(stream.readline())
    assert answer["ok"] is False
    assert "expected an op of" in answer["error"]
    assert request(place, "status") == {"state": "READY"}


def test_several_requests_on_one_connection(server: ControlServer, place: Path) -> None:
    with closing(connect(place)) as client, client.makefile("rwb") as stream:
        for _ in range(3):
            stream.write(b'{"op": "status"}\n')
            stream.flush()
            assert json.loads(stream.readline()) == {"ok": True, "state": "READY"}


def test_a_silent_client_holds_nobody_up(server: ControlServer, place: Path) -> None:
    with closing(connect(place)) as silent, closing(connect(place)) as half:
        half.send(b'{"op": "sta')
        began = time.monotonic()
        assert request(place, "estop") == {"done": True}
        assert time.monotonic() - began < 1.5
        assert silent.fileno() >= 0


def test_an_estop_does_not_wait_for_an_arm(server: ControlServer, place: Path, slow: threading.Event) -> None:
    with closing(connect(place)) as client:
        client.send(b'{"op": "arm"}\n')
        time.sleep(0.05)
        assert request(place, "estop", timeout_s=2) == {"done": True}
        assert not slow.is_set()


def test_a_socket_left_behind_is_replaced(place: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(place))
    assert place.exists()
    with ControlServer(place, {"status": lambda: {"fresh": 1}}):
        assert request(place, "status") == {"fresh": 1}


def test_a_live_robot_keeps_its_socket(server: ControlServer, place: Path) -> None:
    with pytest.raises(ConnectorError, match=r"another robot answers .*\[control\] socket"):
        ControlServer(place, {})
    assert request(place, "status") == {"state": "READY"}


def test_a_live_robot_that_is_too_busy_to_answer_keeps_its_socket(place: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as busy:
        busy.bind(str(place))
        busy.listen(1)
        with pytest.raises(ConnectorError, match="another robot"):
            ControlServer(place, {})
        assert place.exists()


def test_a_file_in_its_place_is_not_deleted(place: Path) -> None:
    place.write_text("precious")
    with pytest.raises(ConnectorError, match="is a file"):
        ControlServer(place, {})
    assert place.read_text() == "precious"


@pytest.mark.parametrize(("name", "word"), [("gone/s", "No such file"), ("x" * 120, "too long")])
def test_places_that_cannot_be(tmp_path: Path, name: str, word: str) -> None:
    with pytest.raises(ConnectorError, match=rf"{word}.*set \[control\] socket"):
        ControlServer(tmp_path / name, {})


def test_what_is_no_robot(place: Path) -> None:
    def answer() -> None:
        client, _ = other.accept()
        with client:
            client.recv(100)
            client.send(b"HTTP/1.1 400 Bad Request\r\n")

    with closing(socket.socket(socket.AF_UNIX)) as other:
        other.bind(str(place))
        other.listen(1)
        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ConnectorError, match="no robot: b'HTTP"):
            request(place, "status")
        thread.join(5)


def test_find_socket(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.mktemp("d")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    with pytest.raises(ConnectorError, match=r"no control socket.*--socket"):
        find_socket()
    with ControlServer(default_socket("a"), {}):
        assert find_socket() == default_socket("a")
        with ControlServer(default_socket("b"), {}), pytest.raises(ConnectorError, match=r"kizzasi-a.*kizzasi-b"):
            find_socket()
