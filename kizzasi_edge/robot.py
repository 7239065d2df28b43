"""From a validated ``robot.toml`` to a running loop: builds the parts, checks them against each other, owns them."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from kizzasi_edge.agreement import require_actuator, require_one_rate, routes, routing_findings
from kizzasi_edge.align import Input
from kizzasi_edge.clock import DeadlineClock, DevicePace, Pace, low_jitter
from kizzasi_edge.config import ConnectorSection, RobotConfig
from kizzasi_edge.connectors import connector_class
from kizzasi_edge.connectors.base import Actuator
from kizzasi_edge.control import ControlServer
from kizzasi_edge.errors import ConfigError, ConnectorError, KizzasiError
from kizzasi_edge.guardrails import Guardrails
from kizzasi_edge.joints import guard_order
from kizzasi_edge.loop import Loop, Policy
from kizzasi_edge.operator import Operator
from kizzasi_edge.predictor import Predictor
from kizzasi_edge.recorder import Recorder
from kizzasi_edge.toml_file import validate
from kizzasi_edge.watchdog import Watchdog

PolicyWrapper = Callable[[Predictor], Policy]


class Robot:
    """One robot of one ``robot.toml``.

    Building it loads model and guard and checks that they, the loop's rate and the connectors' options agree; nothing
    is opened. :meth:`run` opens, runs and closes. ``wrap`` may replace the model's proposals (the demo's sabotage).

    Raises :class:`ConfigError`, :class:`BundleError` or :class:`GuardrailError`, before anything moves.
    """

    def __init__(self, config: RobotConfig, *, wrap: PolicyWrapper | None = None) -> None:
        file = config.file
        self.config = config
        self.guard = Guardrails.load(config.resolve(file.guard.path))
        self.predictor = Predictor(config.resolve(file.model.path), engine=file.model.engine)
        self.policy: Policy = wrap(self.predictor) if wrap else self.predictor
        require_one_rate(config, self.guard, self.predictor)
        guard_order(self.policy.output_names, self.guard, self.guard.where)
        self._connectors: dict[tuple[str, str], Any] = {}
        self._where: dict[tuple[str, str], str] = {}
        built = self._build_connectors(
            [
                (f"{config.path}: [[{kind}]] {i + 1}", section, kind == "output")
                for kind, found in (("input", file.input), ("output", file.output))
                for i, section in enumerate(found)
            ]
        )
        self.inputs, outputs = built[: len(file.input)], built[len(file.input) :]
        if len(outputs) > 1:
            raise ConfigError(f"{config.path}: [[output]]: found {len(outputs)}; this version drives one")
        self.actuator: Actuator | None = outputs[0] if outputs else None
        require_actuator(config, self.guard, self.actuator)
        self.operator: Operator | None = None
        """Of the run that is on, or of the last one."""
        self.arm_error: str | None = None
        self._stop = threading.Event()

    def _build_connectors(self, sections: Sequence[tuple[str, ConnectorSection, bool]]) -> list[Any]:
        """One connector for each (where, section, whether it writes); sections that name the same port share it, and
        their keys add up."""
        merged: dict[tuple[str, str], dict[str, Any]] = {}
        keys = [(section.connector, str(section.options.get("port", where))) for where, section, _ in sections]
        for key, (where, section, _) in zip(keys, sections, strict=True):
            options = merged.setdefault(key, {})
            for name, value in section.options.items():
                if options.setdefault(name, value) != value:
                    raise ConfigError(
                        f"{where} {name}: found {value!r}; another section of the same port says {options[name]!r}"
                    )
        for key, (where, section, writes) in zip(keys, sections, strict=True):
            if key not in self._connectors:
                kind = connector_class(section.connector, where, writes=writes)
                options = validate(merged[key], kind.Options, where, ConfigError)
                self._connectors[key] = kind(options, self.config.path.parent)
                self._where[key] = where
        return [self._connectors[key] for key in keys]

    @property
    def connectors(self) -> list[Any]:
        """Inputs and outputs; a device that is both is one of them."""
        return list(self._connectors.values())

    def findings(self) -> list[tuple[bool, str]]:
        """What can be said before anything is opened: (is an error, text with file and section)."""
        joints = len(self.guard.joints)
        said = [
            (is_error, f"{self._where[key]} {text}")
            for key, connector in self._connectors.items()
            for is_error, text in connector.findings(self.guard.rate_hz, joints)
        ]
        return [*said, *routing_findings(self.config, self.predictor, self.guard, self._routed())]

    def run(self, *, dry_run: bool = False, arm: bool = False, ticks: int | None = None) -> Loop:
        """Open everything and run until :meth:`stop`, SIGINT, SIGTERM or ``ticks``.

        ``dry_run`` never opens the way to ARMED: it reads, steps, guards and records. ``arm`` arms once, at start.
        Returns the loop, for its statistics and its record; afterwards it can be run again. Raises
        :class:`ConfigError` for what :meth:`findings` calls an error, :class:`ConnectorError` if a port cannot be used.
        """
        file, config = self.config.file, self.config
        self.operator = None
        if arm and self.actuator is None:
            raise ConfigError(f"{config.path}: [[output]]: missing; there is nothing to arm")
        if errors := [text for is_error, text in self.findings() if is_error]:
            raise ConfigError("\n".join(errors))
        with ExitStack() as stack:
            stack.callback(self._stop.clear)
            for key, connector in self._connectors.items():
                try:
                    connector.open()
                except ConnectorError as exc:
                    raise type(exc)(f"{self._where[key]}: {exc}") from exc
                stack.callback(connector.close)
            actuator = None if dry_run else self.actuator
            if actuator is not None:
                actuator.prepare(self.guard, float(file.loop.rate_hz))
            align = routes(self.predictor, self.guard, self._routed())
            capacity = math.ceil(float(file.record.seconds if file.record else 10) * self.guard.rate_hz)
            recorder = Recorder(
                capacity, len(align.names), len(self.policy.output_names), len(self.guard.layout.channels)
            )
            pace = self._pace(actuator)
            loop = Loop(self.policy, self.guard, align, actuator, pace, recorder)
            watchdog = None if actuator is None else stack.enter_context(self._watch(loop, actuator))
            refused = stack.enter_context(low_jitter(file.loop.realtime))
            operator = self.operator = Operator(
                file.robot.name,
                self.guard,
                loop,
                watchdog,
                stop=self.stop,
                passive="dry run" if dry_run else "no [[output]]",
                refused=refused,
            )
            stack.enter_context(ControlServer(config.socket, operator.handlers()))
            if threading.current_thread() is threading.main_thread():
                for number in (signal.SIGINT, signal.SIGTERM):
                    stack.callback(signal.signal, number, signal.signal(number, lambda *_: self.stop()))
            if arm and actuator is not None:
                threading.Thread(target=self._arm_once, args=(actuator,), name="arm", daemon=True).start()
            while not self._stop.is_set() and (ticks is None or loop.stats.ticks < ticks):
                loop.tick()
            self._finish(loop, actuator)
            if file.record:
                recorder.save(
                    config.resolve(file.record.path), joints=list(self.guard.joints), inputs=list(align.names)
                )
        return loop

    def stop(self) -> None:
        """Ask :meth:`run` to disarm and return."""
        self._stop.set()

    def _routed(self) -> list[Input]:
        return [
            Input(
                section.name or section.connector,
                source,
                section.fields,
                None if section.stale_ms is None else int(section.stale_ms * 1e6),
            )
            for section, source in zip(self.config.file.input, self.inputs, strict=True)
        ]

    def _watch(self, loop: Loop, actuator: Actuator) -> Watchdog:
        def stop() -> None:
            if actuator.session:
                actuator.estop()

        return Watchdog(lambda: loop.in_flight, self.guard.hang_s, stop)

    def _pace(self, actuator: Actuator | None) -> Pace:
        loop = self.config.file.loop
        # A dry run gives the device no limits, hence no period to follow.
        if loop.pace == "device" and actuator is not None:
            return DevicePace(actuator, float(loop.rate_hz))
        return DeadlineClock(float(loop.rate_hz), spin=loop.realtime)

    def _arm_once(self, actuator: Actuator) -> None:
        try:
            actuator.arm()
        except KizzasiError as exc:
            self.arm_error = str(exc)
            self.stop()

    def _finish(self, loop: Loop, actuator: Actuator | None) -> None:
        """Disarm and keep the device company until it has braked to rest."""
        if actuator is None or not actuator.session:
            return

        def disarm() -> None:
            with suppress(ConnectorError):  # gone, or silent: its TTL stops it
                actuator.disarm()

        threading.Thread(target=disarm, name="disarm", daemon=True).start()
        deadline = time.monotonic() + 5.0
        while actuator.state == "ARMED" and time.monotonic() < deadline:
            loop.attend()

    def status(self) -> Mapping[str, Any]:
        """For operators; see :meth:`~kizzasi_edge.operator.Operator.status`. Before a run it only says STARTING."""
        operator = self.operator
        return {"robot": self.config.file.robot.name, "state": "STARTING"} if operator is None else operator.status()
