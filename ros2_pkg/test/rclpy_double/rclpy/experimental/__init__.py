from rosidl_double.distro import since

if not since("jazzy"):
    raise ModuleNotFoundError("No module named 'rclpy.experimental'", name="rclpy.experimental")

from rclpy.experimental.events_executor import EventsExecutor

__all__ = ["EventsExecutor"]
