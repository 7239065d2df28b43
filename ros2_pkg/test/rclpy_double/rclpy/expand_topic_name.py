from rclpy._names import expand_topic_name

__all__ = ["expand_topic_name"]
