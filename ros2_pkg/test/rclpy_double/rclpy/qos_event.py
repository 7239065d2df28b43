from rosidl_double.distro import since

if since("lyrical"):
    raise ModuleNotFoundError("No module named 'rclpy.qos_event'", name="rclpy.qos_event")

from rclpy._events import *  # noqa: F403
