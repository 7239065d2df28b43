from rosidl_double.distro import since

if not since("iron"):
    raise ModuleNotFoundError("No module named 'rclpy.event_handler'", name="rclpy.event_handler")

from rclpy._events import *  # noqa: F403
