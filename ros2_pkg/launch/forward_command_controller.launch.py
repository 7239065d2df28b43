"""The policy behind forward_command_controller; with `demo_robot:=true` a robot for it as well."""

from kizzasi_ros.launching import policy_with_controller


def generate_launch_description():
    return policy_with_controller("forward_position_controller", "forward_command_controller.toml")
