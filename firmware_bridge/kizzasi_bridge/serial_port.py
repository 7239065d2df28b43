"""Open and configure a serial port, or say in one sentence why that cannot be done.

pyserial does the termios work; this module adds what its exceptions leave out for the person at the
robot: which ports there are, who holds a busy one, which group to join. pyserial is the optional extra
``serial`` and is imported only when a port is opened.
"""

from __future__ import annotations

import errno
import importlib
import os
import stat
import termios
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, get_args

from .errors import ConnectorError

__all__ = ["Dtr", "SerialPort", "port_findings", "port_holders"]

Dtr = Literal["auto", "on", "off"]


class SerialPort:
    """An open, raw, non-blocking serial port; read and written through :attr:`fd`.

    Args:
        path: device file; a ``/dev/serial/by-id/...`` link survives renumbering.
        baud: bits per second (ignored by native USB and ptys).
        dtr: "auto" leaves DTR and RTS as the operating system sets them on open (Linux raises both, which
            resets Uno-style boards); "on" raises DTR (native-USB CDC boards send nothing without it);
            "off" lowers both lines (both, because DTR low with RTS high holds an ESP32 in reset).
        exclusive: take the advisory lock that keeps a second pyserial program out.

    Raises:
        ConnectorError: the port does not exist, is in use, is not a tty, may not be opened, refuses
            the settings, or pyserial is not installed; the message says which and what to do.
    """

    __slots__ = ("_serial", "fd", "path")

    def __init__(self, path: str, *, baud: int, dtr: Dtr = "auto", exclusive: bool = True) -> None:
        if dtr not in get_args(Dtr):
            raise ConnectorError(f"port {path}: dtr must be one of {', '.join(get_args(Dtr))}, found {dtr!r}")
        self.path = path
        self._serial = _configured(path, baud, dtr, exclusive)
        try:
            self._serial.open()
        except (OSError, ValueError, termios.error) as error:  # SerialException is an OSError
            raise ConnectorError(_explain(path, baud, error)) from error
        # FTDI adapters otherwise hold bytes back for 16 ms; ptys and most CDC drivers have no such mode.
        with suppress(OSError, ValueError, NotImplementedError):
            self._serial.set_low_latency_mode(True)
        self.fd: int = self._serial.fd

    def close(self) -> None:
        """Close the port and release its lock; harmless when repeated or when the device is gone."""
        with suppress(OSError):
            self._serial.close()


def port_holders(path: str) -> dict[int, str]:
    """pid → name of the processes that hold ``path`` open; those of other users stay invisible."""
    try:
        target = os.stat(path)
    except OSError:
        return {}
    holders = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # processes end while we look, and other users' are closed to us
            if any(_same_device(fd, target) for fd in (process / "fd").iterdir()):
                holders[int(process.name)] = (process / "comm").read_text().strip()
    return holders


def port_findings(path: str, root: Path = Path("/")) -> list[tuple[bool, str]]:
    """What can be said about a port without opening it: (is an error, sentence). ``root`` is where /sys, /etc … are.

    Opening sets an FTDI's latency_timer to 1 ms where its driver lets us, so that an open port says how it really is.
    """
    device = Path(path).resolve()
    if not device.exists():
        return [(True, f"port: found {path!r}; no such device")]
    found = []
    with suppress(OSError, ValueError):  # an adapter without one, or unplugged as we look
        timer = int((root / f"sys/bus/usb-serial/devices/{device.name}/latency_timer").read_text())
        if timer > 1:
            text = f"{device}: FTDI latency_timer is {timer} ms; set 1 (udev ATTR{{latency_timer}})"
            found.append((False, text))
    usb = device.name.startswith(("ttyUSB", "ttyACM"))
    if usb and (root / "usr/sbin/ModemManager").exists() and not _modem_manager_kept_away(root):
        text = f"{device}: ModemManager is installed and no udev rule with ID_MM_DEVICE_IGNORE keeps it off this port"
        found.append((False, text))
    return found


def _modem_manager_kept_away(root: Path) -> bool:
    folders = ("etc/udev/rules.d", "run/udev/rules.d", "lib/udev/rules.d")
    rules = [path for folder in folders for path in (root / folder).glob("*.rules")]
    return any("ID_MM_DEVICE_IGNORE" in path.read_text(errors="replace") for path in rules)


def _same_device(fd: Path, target: os.stat_result) -> bool:
    try:
        return os.path.samestat(fd.stat(), target)
    except OSError:
        return False


def _configured(path: str, baud: int, dtr: Dtr, exclusive: bool) -> Any:
    """A closed ``serial.Serial`` with everything set, so that open() configures the port in one go."""
    try:
        serial = importlib.import_module("serial")
    except ImportError as error:
        raise ConnectorError(
            f"port {path}: pyserial is not installed; install the extra `serial`: pip install 'kizzasi-edge[serial]'"
        ) from error
    try:
        port = serial.Serial(baudrate=baud, timeout=0, write_timeout=0, exclusive=exclusive)
    except ValueError as error:
        raise ConnectorError(f"port {path}: {error}") from error
    port.port = path
    if dtr == "auto":
        port.dsrdtr = True  # pyserial then leaves DTR alone; it drives no hardware flow control on POSIX
    else:
        port.dtr = dtr == "on"
        port.rts = dtr == "on"
    return port


def _explain(path: str, baud: int, error: Exception) -> str:
    """One sentence about why ``path`` cannot be used, with the next thing to try."""
    code = getattr(error, "errno", None)
    if code in (errno.ENOENT, errno.ENOTDIR) or not os.path.exists(path):
        found = ", ".join(_present_ports()) or "none"
        return f"port {path} does not exist; serial ports present: {found}"
    kind = _file_kind(path)
    if kind is not None:
        return f"port {path} is {kind}, not a serial port"
    if code in (errno.EAGAIN, errno.EBUSY):
        holders = [f"{name} (pid {pid})" for pid, name in port_holders(path).items()]
        return f"port {path} is in use by {', '.join(holders) or 'another process'}; close that program first"
    if code in (errno.EACCES, errno.EPERM):
        return f"no permission to open port {path}: add your user to its group (usually `dialout`) and log in again"
    if isinstance(error, termios.error) or isinstance(error.__context__, termios.error):
        return f"port {path} is not a serial port, or the device behind it is gone ({error})"
    if isinstance(error, ValueError):
        return f"port {path} refuses {baud} baud ({error})"
    return f"port {path} cannot be opened: {error}"


def _file_kind(path: str) -> str | None:
    """What ``path`` is when it is not a character device, else None."""
    with suppress(OSError):
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            return "a directory"
        if stat.S_ISREG(mode):
            return "a regular file"
        if stat.S_ISSOCK(mode):
            return "a Unix socket"
        if not stat.S_ISCHR(mode):
            return "not a character device"
    return None


def _present_ports() -> list[str]:
    """Stable by-id names first, then the bare devices that pyserial knows of."""
    by_id = sorted(str(p) for p in Path("/dev/serial/by-id").glob("*"))
    if by_id:
        return by_id
    return sorted(str(p.device) for p in importlib.import_module("serial.tools.list_ports").comports())
