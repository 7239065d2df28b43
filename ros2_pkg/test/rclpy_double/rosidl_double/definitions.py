"""Interfaces that the typestore has no text of: services, as their two messages each, and what newer packages add."""

from __future__ import annotations

_TRANSITIONS = "---\nlifecycle_msgs/TransitionDescription[] available_transitions"

SERVICES = {
    "std_srvs/srv/Empty": "---",
    "std_srvs/srv/Trigger": "---\nbool success\nstring message",
    "std_srvs/srv/SetBool": "bool data\n---\nbool success\nstring message",
    "lifecycle_msgs/srv/ChangeState": "lifecycle_msgs/Transition transition\n---\nbool success",
    "lifecycle_msgs/srv/GetState": "---\nlifecycle_msgs/State current_state",
    "lifecycle_msgs/srv/GetAvailableStates": "---\nlifecycle_msgs/State[] available_states",
    "lifecycle_msgs/srv/GetAvailableTransitions": _TRANSITIONS,
    "rcl_interfaces/srv/GetParameters": "string[] names\n---\nrcl_interfaces/ParameterValue[] values",
    "rcl_interfaces/srv/GetParameterTypes": "string[] names\n---\nuint8[] types",
    "rcl_interfaces/srv/DescribeParameters": "string[] names\n---\nrcl_interfaces/ParameterDescriptor[] descriptors",
    "rcl_interfaces/srv/ListParameters": (
        "uint64 DEPTH_RECURSIVE=0\nstring[] prefixes\nuint64 depth\n---\nrcl_interfaces/ListParametersResult result"
    ),
    "rcl_interfaces/srv/SetParameters": (
        "rcl_interfaces/Parameter[] parameters\n---\nrcl_interfaces/SetParametersResult[] results"
    ),
    "rcl_interfaces/srv/SetParametersAtomically": (
        "rcl_interfaces/Parameter[] parameters\n---\nrcl_interfaces/SetParametersResult result"
    ),
}
"""Service → its text, as in a ``.srv`` file."""
