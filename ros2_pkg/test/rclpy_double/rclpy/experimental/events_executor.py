from rclpy.executors import SingleThreadedExecutor


class EventsExecutor(SingleThreadedExecutor):
    """In the double it differs in nothing but its name."""
