"""The microcontroller on a serial port: sensors in, guarded commands out, one kizzasi_bridge Link for both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, StrictInt, StrictStr

from kizzasi_bridge import Link, protocol
from kizzasi_bridge.request import code_name
from kizzasi_edge.errors import ConfigError, LinkError
from kizzasi_edge.frames import Command, Observation
from kizzasi_edge.toml_file import Section

if TYPE_CHECKING:
    from kizzasi_edge.guardrails import Guardrails

FRAME_OVERHEAD = 15
STATE_HEADER = 28
COMMAND_HEADER = 10


class SerialOptions(Section):
    """``port`` (a by-id path is best), ``baud``, ``dtr``; ``ttl_ms``: how old an observation may be when its command
    still counts; ``arm_ttl_ms``: how long ARMED may wait for the first command; ``stop``: what ESTOP does."""

    port: StrictStr
    baud: Annotated[StrictInt, Field(gt=0)] = 1_000_000
    dtr: Literal["auto", "on", "off"] = "auto"
    ttl_ms: Annotated[StrictInt, Field(ge=1, le=60_000)] = 100
    arm_ttl_ms: Annotated[StrictInt, Field(ge=1, le=60_000)] = 1000
    stop: Literal["cut", "brake_then_cut"] = "brake_then_cut"


def baud_needed(rate_hz: float, channels: int, sensors: int) -> float:
    """Bits per second of STATE and COMMAND together at 10 bits a byte (CONTRACT §6)."""
    state = FRAME_OVERHEAD + STATE_HEADER + 4 * (channels + sensors)
    command = FRAME_OVERHEAD + COMMAND_HEADER + 4 * channels
    return rate_hz * (state + command) * 10


class SerialDevice:
    """A :class:`Source` of the device's sensors and the :class:`Actuator` of its channels."""

    Options = SerialOptions
    commands: tuple[str, ...] = ("position",)

    def __init__(self, options: SerialOptions, base: Path) -> None:
        self.options = options
        # A pty or device path is absolute; a relative one is meant relative to the config, as every path in it.
        self.port = str(base / options.port)
        self.link = Link(self.port, baud=options.baud, dtr=options.dtr)
        self.names: tuple[str, ...] = ()
        self._limits: protocol.Limits | None = None
        self._count = 0
        self._closed = True

    def open(self) -> None:
        """Open the port and shake hands, once for both roles. Raises :class:`ConnectorError`."""
        if not self._closed:
            return
        self.link.open()
        self._closed = False
        self._schema = self.link.schema
        self._sensors = self.link.sensors
        self.names = self._sensors.names
        self._valid = np.ones(len(self.names), np.bool_)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.link.close()

    def read(self) -> Observation | None:
        state = self.link.latest
        if state is None or not self.link.connected or self._replaced():
            return None
        values = self._sensors.to_si(state.sensors).astype(np.float32)
        return Observation(state.recv_ns, state.count, self.names, values, self._valid, state.t_us)

    def _replaced(self) -> bool:
        """Another board, with other names or scales, was plugged in: its numbers mean nothing here."""
        return self.link.schema is not self._schema and self.link.schema != self._schema

    @property
    def counters(self) -> Mapping[str, int]:
        return self.link.counters

    def findings(self, rate_hz: float, joints: int) -> list[tuple[bool, str]]:
        need = baud_needed(rate_hz, joints, joints)
        found = port_findings(self.port)
        if need > self.options.baud:
            text = f"{rate_hz:g} Hz of STATE and COMMAND for {joints} channels need at least {need:.0f} bit/s"
            found.insert(0, (True, f"baud: found {self.options.baud}; {text}"))
        return found

    def prepare(self, guard: Guardrails, rate_hz: float) -> None:
        """Check that channels, quanta and period are the guard's, and upload its integers."""
        schema = self.link.schema
        channels = [channel.name.removesuffix("/position") for channel in schema.channels]
        if sorted(channels) != sorted(guard.joints):
            raise ConfigError(
                f"{self.port}: the device drives {channels}; the guard {guard.where} guards {list(guard.joints)}"
            )
        order = [guard.joints.index(name) for name in channels]
        for channel, index in zip(schema.channels, order, strict=True):
            if channel.scale != guard.lattice[index].quantum:
                raise ConfigError(
                    f"{self.port}: channel {channel.name!r} counts in quanta of {channel.scale!r}, the guard in "
                    f"{guard.lattice[index].quantum!r}; set [joints] quantum in {guard.where}"
                )
        period_us = 1e6 / rate_hz
        if period_us != int(period_us) or period_us % schema.tick_us:
            raise ConfigError(
                f"[loop] rate_hz: found {rate_hz:g}; the device {self.port} needs a period of whole ticks of "
                f"{schema.tick_us} µs, this one is {period_us:g} µs"
            )
        category = protocol.StopCategory[self.options.stop.upper()]
        self._limits = protocol.Limits(
            tuple(
                protocol.ChannelLimits(
                    cell.lo + channel.zero, cell.hi + channel.zero, cell.w, cell.h, stop_category=category
                )
                for channel, cell in zip(schema.channels, (guard.lattice[index] for index in order), strict=True)
            ),
            int(period_us),
            guard.miss_budget,
            self.options.ttl_ms,
            self.options.arm_ttl_ms,
        )
        self._channels = self.link.channels
        # _order: guard joint of each device channel; its inverse puts what the device says into the guard's order.
        self._order = np.array(order)
        self._inverse = np.argsort(self._order)
        self._zero = np.array([channel.zero for channel in schema.channels], np.int32)[self._inverse]
        if self.state in ("INIT", "READY"):
            self.link.upload_limits(self._limits)

    def wait(self, timeout_s: float) -> int:
        state = self.link.wait_state(self._count, timeout_s)
        if state is None:
            return 0
        began, self._count = state.count - self._count, state.count
        return began

    def motion(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]] | None:
        state = self.link.latest
        if state is None:
            return None
        return state.applied[self._inverse] - self._zero, state.step[self._inverse]

    @property
    def session(self) -> int:
        return self.link.session

    @property
    def state(self) -> str:
        if not self.link.connected:
            return "DISCONNECTED"
        state = self.link.latest
        return code_name(protocol.NodeState, self.link.hello.state if state is None else state.state)

    def write(self, command: Command) -> None:
        self.link.command(self._channels.to_raw(command.values[self._order]), command.t_us, self.options.ttl_ms)

    def idle(self) -> None:
        self.link.heartbeat()

    def arm(self) -> None:
        """Make sure the device holds our limits, then arm it. Raises :class:`LinkError` with the device's reason."""
        if self._limits is None:
            raise ConfigError(f"{self.port}: no guard was prepared for this device")
        if self._replaced():
            raise LinkError(f"{self.port}: another device was plugged in since the start; restart to use it")
        if self.state in ("INIT", "READY"):
            self.link.upload_limits(self._limits)
        self.link.arm()

    def disarm(self) -> None:
        self.link.disarm()

    def estop(self) -> None:
        self.link.estop()

    def clear(self) -> None:
        self.link.clear()

    @property
    def status(self) -> Mapping[str, object]:
        state = self.link.latest
        fault = "NONE" if state is None else code_name(protocol.Fault, state.fault)
        node = (
            {}
            if state is None
            else {
                "misses": state.misses,
                "stale": state.stale,
                "ignored": state.ignored,
                "rx_errors": state.rx_errors,
            }
        )
        diagnosis = {} if self.link.diagnosis is None else {"diagnosis": self.link.diagnosis}
        return {
            "port": self.port,
            "fault": fault,
            "session": self.session,
            "node": node,
            "counters": self.link.counters,
            **diagnosis,
        }


def port_findings(port: str) -> list[tuple[bool, str]]:
    """What can be said about a serial port without opening it: (is an error, text)."""
    device = Path(port).resolve()
    if not device.exists():
        return [(True, f"port: found {port!r}; no such device")]
    found = []
    timer = Path(f"/sys/bus/usb-serial/devices/{device.name}/latency_timer")
    if timer.exists() and int(timer.read_text()) > 1:
        found.append(
            (
                False,
                f"{device}: FTDI latency_timer is {timer.read_text().strip()} ms; set 1 (udev ATTR{{latency_timer}})",
            )
        )
    if (
        device.name.startswith(("ttyUSB", "ttyACM"))
        and Path("/usr/sbin/ModemManager").exists()
        and not _modem_manager_kept_away()
    ):
        found.append(
            (
                False,
                f"{device}: ModemManager is installed and no udev rule with ID_MM_DEVICE_IGNORE keeps it off this port",
            )
        )
    return found


def _modem_manager_kept_away() -> bool:
    folders = ("/etc/udev/rules.d", "/run/udev/rules.d", "/lib/udev/rules.d")
    rules = [path for folder in folders for path in Path(folder).glob("*.rules")]
    return any("ID_MM_DEVICE_IGNORE" in path.read_text(errors="replace") for path in rules)
