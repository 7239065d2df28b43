"""The microcontroller on a serial port: sensors in, guarded commands out, one kizzasi_bridge Link for both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, StrictInt, StrictStr

from kizzasi_bridge import Link, protocol
from kizzasi_bridge.line import baud_needed
from kizzasi_bridge.request import code_name
from kizzasi_bridge.serial_port import port_findings
from kizzasi_edge.connectors.device_map import DeviceMap, Session, device_map
from kizzasi_edge.errors import ConfigError, LinkError
from kizzasi_edge.frames import Command, Observation
from kizzasi_edge.toml_file import Number, Section

if TYPE_CHECKING:
    from kizzasi_edge.guardrails import Guardrails


class SerialOptions(Section):
    """``port`` (a by-id path is best), ``baud``, ``dtr``; ``ttl_ms``: how old an observation may be when its command
    still counts; ``arm_ttl_ms``: how long ARMED may wait for the first command; ``stop``: what ESTOP does; by joint
    ``goto_safe`` [rad]: where FAILSAFE takes positions once they rest, ``damping`` [N·m·s/rad]: how torques brake."""

    port: StrictStr
    baud: Annotated[StrictInt, Field(gt=0)] = 1_000_000
    dtr: Literal["auto", "on", "off"] = "auto"
    ttl_ms: Annotated[StrictInt, Field(ge=1, le=60_000)] = 100
    arm_ttl_ms: Annotated[StrictInt, Field(ge=1, le=60_000)] = 1000
    stop: Literal["cut", "brake_then_cut"] = "brake_then_cut"
    goto_safe: Mapping[StrictStr, Number] = {}
    damping: Mapping[StrictStr, Annotated[Number, Field(ge=0)]] = {}


class SerialDevice:
    """A :class:`Source` of the device's sensors and the :class:`Actuator` of its channels."""

    Options = SerialOptions
    commands: tuple[str, ...] = ("position", "velocity", "torque")

    def __init__(self, options: SerialOptions, base: Path) -> None:
        self.options = options
        # A pty or device path is absolute; a relative one is meant relative to the config, as every path in it.
        self.port = str(base / options.port)
        self.link = Link(self.port, baud=options.baud, dtr=options.dtr)
        self.names: tuple[str, ...] = ()
        self._map: DeviceMap | None = None
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
        options = self.options
        session = Session(
            options.ttl_ms,
            options.arm_ttl_ms,
            protocol.StopCategory[options.stop.upper()],
            options.goto_safe,
            options.damping,
        )
        self._map = device_map(guard, self.link.schema, rate_hz, session, self.port)
        if self.state in ("INIT", "READY"):
            self.link.upload_limits(self._map.limits)

    def place(self, position: npt.NDArray[np.float32]) -> None:
        """Nothing: the device measures by itself."""

    def wait(self, timeout_s: float) -> int:
        state = self.link.wait_state(self._count, timeout_s)
        if state is None:
            return 0
        began, self._count = state.count - self._count, state.count
        return began

    def motion(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]] | None:
        state = self.link.latest
        if state is None or self._map is None:
            return None
        return self._map.motion(state)

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
        assert self._map is not None, "armed without prepare()"
        self.link.command(self._map.to_raw(command.values), command.t_us, self.options.ttl_ms)

    def idle(self) -> None:
        self.link.heartbeat()

    def arm(self) -> None:
        """Make sure the device holds our limits, then arm it. Raises :class:`LinkError` with the device's reason."""
        if self._map is None:
            raise ConfigError(f"{self.port}: no guard was prepared for this device")
        if self._replaced():
            raise LinkError(f"{self.port}: another device was plugged in since the start; restart to use it")
        if self.state in ("INIT", "READY"):
            self.link.upload_limits(self._map.limits)
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
        said = [text for text in (self.link.diagnosis, *self.link.line.findings) if text]
        diagnosis = {"diagnosis": "; ".join(said)} if said else {}
        return {
            "port": self.port,
            "fault": fault,
            "session": self.session,
            "node": node,
            "counters": self.link.counters,
            **diagnosis,
        }
