"""The POSIX board as a process: its pty, unplug and replug, the plant's lock-step, and time that does not bend."""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from kizzasi_bridge import ConnectorError, Decoder, Frame, encode, posix_board
from kizzasi_bridge.board import PosixBoard
from kizzasi_bridge.protocol import Ack, Arm, ChannelLimits, Command, Hello, Limits, MsgType, NodeState, State
from kizzasi_bridge.schema import Schema

SCHEMA = Schema.positions(("shoulder", "elbow"), scale=2.0**-21)
LIMITS = Limits((ChannelLimits(-100_000, 100_000, 1000, 50),) * 2, 2000, 3, 1000, 2000)


class Host:
    """A bare host on a pty: no threads, no pyserial."""

    def __init__(self, port: Path) -> None:
        self.fd = os.open(port, os.O_RDWR | os.O_NOCTTY)
        self.decoder = Decoder()
        self.seq = 0

    def send(self, kind: int, payload: bytes = b"") -> None:
        self.seq += 1
        os.write(self.fd, encode(kind, payload, seq=self.seq, t_us=0))

    def frames(self, timeout_s: float) -> list[Frame]:
        ready, _, _ = select.select([self.fd], [], [], timeout_s)
        return self.decoder.feed(os.read(self.fd, 4096)) if ready else []

    def wait(self, kind: int, wanted: Callable[[Frame], bool] = lambda _: True) -> Frame:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            for frame in self.frames(0.5):
                if frame.type == kind and wanted(frame):
                    return frame
        raise AssertionError(f"no {MsgType(kind).name} that was waited for")

    def hello(self) -> Hello:
        self.send(MsgType.HELLO_REQ)
        return Hello.unpack(self.wait(MsgType.HELLO).payload)

    def arm(self) -> int:
        hello = self.hello()
        for payload in [*LIMITS.channel_payloads()]:
            self.send(MsgType.LIMITS, payload)
        self.send(MsgType.LIMITS_COMMIT, LIMITS.commit_payload(hello.schema_hash))
        self.wait(MsgType.ACK, lambda f: f.payload[0] == MsgType.LIMITS_COMMIT)
        state = State.unpack(self.wait(MsgType.STATE, lambda f: f.payload[0] == NodeState.READY).payload)
        self.send(MsgType.ARM, Arm(state.nonce, LIMITS.hash(hello.schema_hash)).pack())
        ack = Ack.unpack(self.wait(MsgType.ACK).payload)
        assert ack.result == 0
        return ack.value

    def close(self) -> None:
        os.close(self.fd)


class Plant:
    """Answers every tick with what it was told, and keeps what it saw."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen: list[tuple[int, int, int, int, int]] = []
        self.closing = False
        self.extra = 0
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen(1)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._server.accept()
        with connection, suppress(ConnectionResetError, BrokenPipeError):
            while not self.closing:
                head = connection.recv(32, socket.MSG_WAITALL)
                if len(head) < 32:
                    return
                t_us, dt_us, enabled, state, _boundary, n, _session = struct.unpack_from("<IIBBBBI", head)
                assert n == 2
                out = struct.unpack_from("<2i", head, 16)
                self.seen.append((t_us, dt_us, enabled, state, out[0]))
                connection.sendall(struct.pack("<BBH2i", 0, 2 + self.extra, 0, *out))

    def close(self) -> None:
        self.closing = True
        self._thread.join(5)
        self._server.close()


@pytest.fixture
def board() -> Iterator[PosixBoard]:
    with PosixBoard(SCHEMA, boot_id=77) as running:
        yield running


def test_hello_state_and_clean_end(board: PosixBoard) -> None:
    host = Host(board.port)
    hello = host.hello()
    assert (hello.boot_id, hello.n_channels, hello.n_sensors) == (77, 2, 2)
    assert State.unpack(host.wait(MsgType.STATE).payload).state == NodeState.INIT
    host.close()
    assert board.terminate() == 0
    assert not os.path.lexists(board.port)


def test_unplug_hangs_up_and_replug_brings_the_same_boot_back(board: PosixBoard) -> None:
    host = Host(board.port)
    host.arm()
    board.unplug()
    poller = select.poll()
    poller.register(host.fd, 0)
    ((_, events),) = poller.poll(10_000)
    assert events & select.POLLHUP
    host.close()
    board.replug()
    host = Host(board.port)
    hello = host.hello()
    assert hello.boot_id == 77
    assert hello.limits_hash == LIMITS.hash(hello.schema_hash)
    host.wait(MsgType.STATE, lambda f: f.payload[0] == NodeState.FAILSAFE)  # arm_ttl: nobody armed it again
    host.close()


def test_a_host_that_does_not_read_never_blocks_the_tick() -> None:
    with PosixBoard(SCHEMA, fast=True) as board:  # so that it is the port that it could wait for
        host = Host(board.port)
        time.sleep(0.5)  # more STATE frames than pty and queue take, by far
        board.process.send_signal(signal.SIGUSR1)
        assert board.terminate() == 0
        ticks, _late, dropped = (int(w) for w in board.messages().replace(",", "").split() if w.isdigit())
        assert dropped > 300
        assert ticks > 10 * dropped
        host.close()


def test_nobody_on_the_port_is_no_trouble(board: PosixBoard) -> None:
    time.sleep(0.1)
    host = Host(board.port)
    first = State.unpack(host.wait(MsgType.STATE).payload)
    assert first.sample_t_us > 20_000, "frames from before the host came are not kept for it"
    host.close()


def test_plant_is_stepped_by_firmware_time_in_lock_step(tmp_path: Path) -> None:
    plant = Plant(tmp_path / "plant")
    with PosixBoard(SCHEMA, plant=plant.path, fast=True, directory=tmp_path) as board:
        host = Host(board.port)
        session = host.arm()
        for _ in range(50):
            state = State.unpack(host.wait(MsgType.STATE).payload)
            host.send(MsgType.COMMAND, Command(session, state.sample_t_us, 1000, (100_000, 0)).pack())
        state = State.unpack(host.wait(MsgType.STATE, lambda f: State.unpack(f.payload).values[0] > 0).payload)
        host.close()
    plant.close()
    times = [t for t, *_ in plant.seen]
    assert times == list(range(0, 1000 * len(times), 1000))
    assert {dt for _, dt, *_ in plant.seen} == {1000}
    assert [e for _, _, e, *_ in plant.seen][:1] == [0]
    assert {s for *_, s, _ in plant.seen} >= {NodeState.INIT, NodeState.READY, NodeState.ARMED}
    assert state.values[2] <= state.values[0], "the sensor follows the setpoint"


def test_a_stall_does_not_bend_time(tmp_path: Path) -> None:
    plant = Plant(tmp_path / "plant")
    with PosixBoard(SCHEMA, plant=plant.path, directory=tmp_path) as board:
        host = Host(board.port)
        host.hello()
        host.wait(MsgType.STATE)
        os.kill(board.process.pid, signal.SIGSTOP)
        stopped_at = -1
        while stopped_at != plant.seen[-1][0]:  # what it sent before
            stopped_at = plant.seen[-1][0]
            time.sleep(0.05)
        began = time.monotonic()
        time.sleep(0.4)
        assert plant.seen[-1][0] == stopped_at
        os.kill(board.process.pid, signal.SIGCONT)
        while plant.seen[-1][0] < stopped_at + 100_000:
            assert time.monotonic() < began + 20
            time.sleep(0.002)
        ran_us = plant.seen[-1][0] - stopped_at
        passed_us = (time.monotonic() - began - 0.4) * 1e6
        assert 0 < ran_us <= passed_us + 20_000, "it does not run faster to make up for the stall"
        host.close()
    plant.close()
    times = [t for t, *_ in plant.seen]
    assert times == list(range(0, 1000 * len(times), 1000))


def test_the_board_ends_when_the_plant_does(tmp_path: Path) -> None:
    plant = Plant(tmp_path / "plant")
    with PosixBoard(SCHEMA, plant=plant.path, directory=tmp_path) as board:
        plant.close()
        assert board.process.wait(5) == 1
        assert "plant is gone" in board.messages()


def test_a_plant_with_another_number_of_sensors_is_refused(tmp_path: Path) -> None:
    plant = Plant(tmp_path / "plant")
    plant.extra = 1
    with PosixBoard(SCHEMA, plant=plant.path, directory=tmp_path) as board:
        assert board.process.wait(5) == 1
    plant.close()


def test_no_plant_listening_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConnectorError, match="plant"):
        PosixBoard(SCHEMA, plant=tmp_path / "nobody", directory=tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--link", "x", "--schema", "/nonexistent", "--channels", "1", "--sensors", "1"],
        ["--link", "x", "--schema", "/dev/null", "--channels", "0", "--sensors", "1"],
        ["--link", "x", "--schema", "/dev/null", "--channels", "17", "--sensors", "20"],
        ["--link", "x", "--schema", "/dev/null", "--channels", "2", "--sensors", "1"],
        ["--link", "x", "--schema", "/dev/null", "--channels", "2z", "--sensors", "2"],
        ["--nonsense"],
    ],
)
def test_bad_arguments_say_what_is_wrong(arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run([posix_board(), *arguments], capture_output=True, text=True, cwd=tmp_path, timeout=5)
    assert done.returncode in (1, 2)
    assert done.stderr.startswith("kz_posix_board: ") or "kz_posix_board" in done.stderr
    assert not list(tmp_path.iterdir())
