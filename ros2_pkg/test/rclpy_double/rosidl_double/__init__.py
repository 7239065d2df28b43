"""What stands behind rclpy in the double: message classes and their bytes, as rosidl and an RMW give them."""
