"""The POSIX board: the real firmware as a process on a pty, for the demo, for tests and for trying things."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from .errors import ConnectorError
from .schema import Schema

__all__ = ["PosixBoard", "posix_board"]


def posix_board() -> Path:
    """The ``kz_posix_board`` executable that was built with the extension (wheel and checkout alike).

    Raises:
        ConnectorError: it is not there; the package was not built by pip.
    """
    path = Path(__file__).parent / "bin" / "kz_posix_board"
    if not os.access(path, os.X_OK):
        raise ConnectorError(f"{path} is missing or not executable; build it with `pip install -e .` in the checkout")
    return path


class PosixBoard:
    """A running board; use it as a context manager. Leaving it terminates the process.

    Args:
        schema: names, units and scales; sets the number of channels and sensors and the tick.
        plant: Unix stream socket of the plant, already listening; None gives ideal actuators.
        fast: not paced by real time.
        boot_id: None lets the board draw one.
        directory: where the link and the schema file go; None makes a temporary one.

    Attributes:
        port: path of the link to the pty, to be opened like any serial port; stays the same over replug().
        process: the child process.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        plant: str | os.PathLike[str] | None = None,
        fast: bool = False,
        boot_id: int | None = None,
        directory: str | os.PathLike[str] | None = None,
    ) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="kizzasi-board-") if directory is None else None
        home = Path(self._scratch.name if self._scratch else os.fspath(directory or ""))
        schema_file = home / "schema.bin"
        schema_file.write_bytes(schema.to_bytes())
        self.port = home / "port"
        command = [
            str(posix_board()),
            *("--link", str(self.port)),
            *("--schema", str(schema_file)),
            *("--channels", str(len(schema.channels))),
            *("--sensors", str(len(schema.sensors))),
            *("--modes", "".join(channel.type[0] for channel in schema.channels)),
            *("--tick-us", str(schema.tick_us)),
        ]
        if plant is not None:
            command += ["--plant", os.fspath(plant)]
        if fast:
            command.append("--fast")
        if boot_id is not None:
            command += ["--boot-id", str(boot_id)]
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._stderr)
        try:
            self._wait_ready(5.0)
        except BaseException:
            self.terminate()
            raise

    def _wait_ready(self, timeout_s: float) -> None:
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        line = b""
        deadline = time.monotonic() + timeout_s
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(fd, 256) if ready else b""
            if not chunk:
                raise ConnectorError(f"kz_posix_board did not start: {self.messages() or 'no answer'}")
            line += chunk

    def messages(self) -> str:
        """What the process has written to stderr: why it ended, and its tick counts."""
        return os.pread(self._stderr.fileno(), 65536, 0).decode(errors="replace").strip()

    def unplug(self) -> None:
        """Pull the cable: the pty hangs up and the link vanishes; the firmware runs on. Returns when it has."""
        self.process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + 5.0
        while os.path.lexists(self.port):
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise ConnectorError(f"kz_posix_board did not unplug: {self.messages()}")
            time.sleep(0.001)

    def replug(self) -> None:
        """Plug it in again: a new pty behind the same link. Returns when it is there."""
        self.process.send_signal(signal.SIGUSR2)
        self._wait_ready(5.0)

    def terminate(self) -> int:
        """End the process (SIGTERM, SIGKILL after 5 s) and return its exit status; harmless when repeated."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)  # a stopped process would not see SIGTERM
            self.process.terminate()
            try:
                self.process.wait(5.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        if self._scratch is not None:
            self._scratch.cleanup()
        return self.process.returncode

    def __enter__(self) -> PosixBoard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.terminate()
        self._stderr.close()
