"""The policy behind joint_trajectory_controller; with `demo_robot:=true` a robot for it as well."""

from kizzasi_ros.launching import policy_with_controller


def generate_launch_description():
    return policy_with_controller("joint_trajectory_controller", "joint_trajectory_controller.toml")
