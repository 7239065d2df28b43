from rclpy import _rclpy_pybind11

rclpy_implementation = _rclpy_pybind11
