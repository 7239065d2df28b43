"""Which ROS distribution the double behaves as: the environment's ROS_DISTRO, as in a sourced shell; else jazzy.

What a node can meet that differs, and the double has:

- humble: the QoS event classes are in ``rclpy.qos_event``, later in ``rclpy.event_handler``. No ``matched`` event, no
  pre- and post-set-parameters callbacks, no ``message_info`` for a subscription's callback, no
  ``get_publisher_count()``. A parameter may be declared with neither value nor type.
- since jazzy: ``Client.call(timeout_sec=)``, ``resolve_service_name``, ``count_services`` and ``count_clients``,
  ``list_parameters``, ``topic_type_hash`` of an endpoint's info, ``autostart`` of timers, executors in a ``with``,
  ``rclpy.experimental.EventsExecutor``; an executor that spins refuses to be spun again with RuntimeError.
- since kilted: ``with rclpy.init()``, nodes and endpoints in a ``with``; the end of a context destroys its nodes;
  ``Client.call`` raises TimeoutError instead of giving None; and a lifecycle transition that does not begin in the
  present state is logged and ERROR. Before, it raises RCLError: out of ``trigger_…``, and where the ``~/change_state``
  service was asked for it by its id, out of the executor.
- humble checks a message's fields as they are set. From jazzy on that is off unless ``check_fields`` or
  ROS_PYTHON_CHECK_FIELDS asks for it, and a wrong field is undefined behaviour at publish(); the double always checks.
"""

from __future__ import annotations

import os

NAMES = ("humble", "iron", "jazzy", "kilted", "lyrical", "rolling")
DISTRO = os.environ.get("ROS_DISTRO") or "jazzy"
if DISTRO not in NAMES:
    raise ImportError(f"ROS_DISTRO: found {DISTRO!r}; the double knows {', '.join(NAMES)}")


def since(name: str) -> bool:
    """The distribution is this one or a later one."""
    return NAMES.index(DISTRO) >= NAMES.index(name)
