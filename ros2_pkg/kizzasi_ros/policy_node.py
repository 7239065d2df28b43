"""The lifecycle node: a robot.toml in a ROS 2 stack.

configure loads and checks it; activate starts reading and stepping on the loop's own thread; only ``~/arm`` arms (or
``arm_on_activate``); deactivate brakes to rest; cleanup releases. What ends the loop by itself, ends the activation: an
error leads to `unconfigured` with the robot at rest.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import MultiThreadedExecutor
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import Trigger

from kizzasi_edge.config import ConnectorSection, RobotConfig, load_config
from kizzasi_edge.connectors.ros2 import lend
from kizzasi_edge.errors import ConfigError, KizzasiError
from kizzasi_edge.operator import Operator
from kizzasi_edge.robot import Robot
from kizzasi_ros.callbacks import answering, logged, spin
from kizzasi_ros.parameters import declare, refusal, remap
from kizzasi_ros.reports import diagnostics, verdict_report
from kizzasi_ros.running import Running
from kizzasi_ros.transport import NodeTransport

Section = TypeVar("Section", bound=ConnectorSection)

WATCH_S = 0.1
"""How soon an activation ends after its loop has."""
THREADS = 4
"""One waits in a transition, one in ~/arm: the others bring messages in, and an emergency stop through."""


class PolicyNode(LifecycleNode):
    """Needs a :class:`MultiThreadedExecutor`: an emergency stop waits neither for an arming nor for a transition."""

    def __init__(self, **options: Any) -> None:
        super().__init__("kizzasi_policy", **options)
        declare(self)
        self._transport = NodeTransport(self)
        self._robot: Robot | None = None
        self._running: Running | None = None
        self._estopped = False  # also where nothing runs: an emergency stop is not forgotten by the next activation
        self._lifecycle = "unconfigured"
        self._reported: Mapping[str, Any] = {}
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._verdicts = self.create_publisher(DiagnosticStatus, "~/verdict", 10)
        beside = ReentrantCallbackGroup()
        for name, act in (
            ("arm", self._arm),
            ("disarm", lambda: self._operator().disarm()),
            ("estop", self._estop),
            ("clear_fault", self._clear_fault),
            ("reset_state", lambda: self._operator().reset_state()),
        ):
            self.create_service(Trigger, f"~/{name}", answering(act), callback_group=beside)
        # In the default group, as the lifecycle's services: an end that is seen never meets a transition under way.
        self.create_timer(WATCH_S, self._watch)
        self._rates = {
            "verdict_rate_hz": self.create_timer(1.0, self._publish_verdict, callback_group=beside),
            "diagnostics_rate_hz": self.create_timer(1.0, self._publish_diagnostics, callback_group=beside),
        }
        for name in self._rates:
            self._set_rate(name, self._value(name))
        self.add_on_set_parameters_callback(self._on_set)

    @logged
    def on_configure(self, state: Any) -> TransitionCallbackReturn:
        try:
            robot = self._load()
        except KizzasiError as exc:
            self.get_logger().error(str(exc))
            return TransitionCallbackReturn.FAILURE
        self._robot, self._lifecycle = robot, "inactive"
        return super().on_configure(state)

    @logged
    def on_activate(self, state: Any) -> TransitionCallbackReturn:
        assert self._robot is not None
        running = self._running = Running(self._robot)
        try:
            running.wait_until_up(self._value("start_s"))
            if self._value("arm_on_activate"):
                self._arm()
        except KizzasiError as exc:
            self.get_logger().error(f"not activated: {exc}")
            self._end()
            return TransitionCallbackReturn.FAILURE
        self._lifecycle = "active"
        return super().on_activate(state)

    @logged
    def on_deactivate(self, state: Any) -> TransitionCallbackReturn:
        error = self._end()
        if error is not None:
            self.get_logger().error(f"the loop has ended: {error}")
            return TransitionCallbackReturn.ERROR
        self._lifecycle = "inactive"
        return super().on_deactivate(state)

    @logged
    def on_cleanup(self, state: Any) -> TransitionCallbackReturn:
        self._release()
        return super().on_cleanup(state)

    @logged
    def on_shutdown(self, state: Any) -> TransitionCallbackReturn:
        self._end()
        self._release("finalized")
        return super().on_shutdown(state)

    @logged
    def on_error(self, state: Any) -> TransitionCallbackReturn:
        """At rest, and everything released: it can be configured anew."""
        self._end()
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def end(self) -> None:
        """Brake to rest, before ROS goes."""
        self._end()

    def _load(self) -> Robot:
        path = self._value("config")
        if not path:
            raise ConfigError("config: found none; expected the path of a robot.toml")
        config = load_config(Path(path))
        try:
            rename = remap(self._value("joint_remap"))
        except ValueError as exc:
            raise ConfigError(str(exc)) from None
        robot = Robot(_with_names(config, rename))
        lend(self._transport, robot.connectors)
        findings = robot.findings()
        for _, text in (finding for finding in findings if not finding[0]):
            self.get_logger().warning(text)
        if errors := [text for is_error, text in findings if is_error]:
            raise ConfigError("\n".join(errors))
        return robot

    def _end(self) -> Exception | None:
        """Brake to rest and close; why the loop had ended before, if it had."""
        running, self._running = self._running, None
        if running is None:
            return None
        try:
            running.end()
        except KizzasiError as exc:
            self.get_logger().error(str(exc))
            return exc
        return running.error

    def _release(self, state: str = "unconfigured") -> None:
        self._robot = None
        self._lifecycle = state

    def _watch(self) -> None:
        running = self._running
        if running is not None and running.over and self._lifecycle == "active":
            self.trigger_deactivate()

    # ---- services

    @property
    def _reachable(self) -> Operator | None:
        """``None`` where nothing runs, and while its connectors open."""
        running = self._running
        return None if running is None or running.over else running.operator

    def _operator(self) -> Operator:
        operator = self._reachable
        if operator is None:
            raise ConfigError(f"found the node {self._lifecycle}; expected it active")
        return operator

    def _arm(self) -> None:
        operator = self._operator()
        if self._estopped:
            raise ConfigError("arm: found an emergency stop; expected ~/clear_fault after it")
        operator.arm()

    def _estop(self) -> None:
        self._estopped = True
        if (operator := self._reachable) is not None:
            operator.estop()

    def _clear_fault(self) -> None:
        if (operator := self._reachable) is not None:
            operator.clear()
        self._estopped = False

    # ---- what it says

    def _publish_verdict(self) -> None:
        operator = self._reachable
        verdict = None if operator is None else operator.verdict()
        if operator is not None and verdict is not None:
            changed = dict(operator.loop.stats.interventions)
            self._verdicts.publish(verdict_report(self.get_name(), verdict, changed))

    def _publish_diagnostics(self) -> None:
        operator = self._reachable
        now: Mapping[str, Any] = {} if operator is None else operator.status()
        stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(diagnostics(self.get_name(), stamp, self._lifecycle, now, self._reported))
        self._reported = now

    # ---- parameters

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _on_set(self, parameters: list[Parameter]) -> SetParametersResult:
        why = refusal(parameters, configured=self._lifecycle != "unconfigured")
        if not why:
            for parameter in parameters:
                if parameter.name in self._rates:
                    self._set_rate(parameter.name, parameter.value)
        return SetParametersResult(successful=not why, reason=why)

    def _set_rate(self, name: str, rate_hz: float) -> None:
        self._rates[name].timer_period_ns = round(1e9 / rate_hz)
        self._rates[name].reset()


def _with_names(config: RobotConfig, rename: Mapping[str, str]) -> RobotConfig:
    """Each topic of this node's graph by these names too; what its section says itself comes first."""

    def named(section: Section) -> Section:
        if section.connector != "ros2" or "channels" in section.options:
            return section
        return section.model_copy(update={"rename": {**rename, **section.options.get("rename", {})}})

    file = config.file
    changed = {"input": [named(section) for section in file.input], "output": [named(s) for s in file.output]}
    return RobotConfig(config.path, file.model_copy(update=changed))


def main(args: list[str] | None = None) -> None:
    """Entry point. Signals are ours: rclpy's own handler would end ROS first, and with it the way to brake."""
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked.set())
    node = PolicyNode()
    executor = MultiThreadedExecutor(THREADS)
    executor.add_node(node)
    spinning = threading.Thread(target=spin, args=(executor, node), name="executor", daemon=True)
    spinning.start()
    try:
        while not asked.wait(WATCH_S) and spinning.is_alive():
            pass
        node.end()
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
