"""ROS 2 topics without ROS: message codecs, and transports that move their bytes."""
