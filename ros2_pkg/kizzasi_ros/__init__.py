"""The kizzasi_edge runtime as a ROS 2 lifecycle node."""
