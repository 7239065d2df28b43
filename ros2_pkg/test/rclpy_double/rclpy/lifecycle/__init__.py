from rclpy.lifecycle.managed_entity import ManagedEntity, SimpleManagedEntity, TransitionCallbackReturn
from rclpy.lifecycle.node import LifecycleNode, LifecycleNodeMixin, LifecycleState
from rclpy.lifecycle.publisher import LifecyclePublisher

Node = LifecycleNode
NodeMixin = LifecycleNodeMixin
Publisher = LifecyclePublisher
State = LifecycleState

__all__ = [
    "LifecycleNode",
    "LifecycleNodeMixin",
    "LifecyclePublisher",
    "LifecycleState",
    "ManagedEntity",
    "Node",
    "NodeMixin",
    "Publisher",
    "SimpleManagedEntity",
    "State",
    "TransitionCallbackReturn",
]
