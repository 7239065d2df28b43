"""The policy's node alone: `ros2 launch kizzasi_ros policy.launch.py config:=robot.toml`."""

from kizzasi_ros.launching import policy_alone


def generate_launch_description():
    return policy_alone()
