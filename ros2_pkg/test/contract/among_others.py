"""The node's process as a launch file starts it; beside it, in a context of their own, the robot and an operator, who
arms and then interrupts it as Ctrl-C does. Prints, as JSON, what the robot was told."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading

from rclpy.context import Context
from rclpy.executors import MultiThreadedExecutor
from robot_in_ros import OperatorNode, RobotNode, until

from kizzasi_ros.policy_node import main


def drive(robot: RobotNode, operator: OperatorNode) -> None:
    try:
        assert operator.configure()
        assert operator.activate()
        assert operator.ask("arm") == ""
        until(lambda: len(robot.told) > 30, "commands")
    finally:
        os.kill(os.getpid(), getattr(signal, sys.argv[2]))


def run(config: str) -> None:
    others = Context()
    others.init()
    robot, operator = RobotNode(context=others), OperatorNode(context=others)
    executor = MultiThreadedExecutor(4, context=others)
    executor.add_node(robot)
    executor.add_node(operator)
    threading.Thread(target=executor.spin, daemon=True).start()
    threading.Thread(target=drive, args=(robot, operator), daemon=True).start()
    main(["policy_node", "--ros-args", "-p", f"config:={config}"])
    until(lambda: len(robot.told) > 2 and robot.told[-1] == robot.told[-2], "rest")
    json.dump(robot.told, sys.stdout)
    executor.shutdown()
    others.try_shutdown()


run(sys.argv[1])
