"""The states of a managed node and the transitions between them, as rcl_lifecycle has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from rclpy._rclpy_pybind11 import RCLError

STATES = {
    0: "unknown",
    1: "unconfigured",
    2: "inactive",
    3: "active",
    4: "finalized",
    10: "configuring",
    11: "cleaningup",
    12: "shuttingdown",
    13: "activating",
    14: "deactivating",
    15: "errorprocessing",
}
_IDS = {label: number for number, label in STATES.items()}


class Step(NamedTuple):
    """One transition."""

    id: int
    label: str
    start: int
    goal: int


def _asked() -> list[Step]:
    plan = (
        (1, "configure", "unconfigured", "configuring"),
        (2, "cleanup", "inactive", "cleaningup"),
        (3, "activate", "inactive", "activating"),
        (4, "deactivate", "active", "deactivating"),
        (5, "shutdown", "unconfigured", "shuttingdown"),
        (6, "shutdown", "inactive", "shuttingdown"),
        (7, "shutdown", "active", "shuttingdown"),
    )
    return [Step(number, label, _IDS[start], _IDS[goal]) for number, label, start, goal in plan]


def _answers() -> list[Step]:
    """Of each passing state: where its callback's success, failure and error lead."""
    plan = (
        (10, "configuring", "inactive", "unconfigured", "errorprocessing"),
        (20, "cleaningup", "unconfigured", "inactive", "errorprocessing"),
        (30, "activating", "active", "inactive", "errorprocessing"),
        (40, "deactivating", "inactive", "active", "errorprocessing"),
        (50, "shuttingdown", "finalized", "finalized", "errorprocessing"),
        (60, "errorprocessing", "unconfigured", "finalized", "finalized"),
    )
    return [
        Step(first + i, f"transition_{answer}", _IDS[start], _IDS[goals[i]])
        for first, start, *goals in plan
        for i, answer in enumerate(("success", "failure", "error"))
    ]


STEPS = (*_asked(), *_answers())


class LifecycleStateMachine:
    """``notify`` is called with each transition that was made. A transition that does not start where the machine is
    raises RCLError."""

    initialized = True

    def __init__(self, notify: Callable[[Step], None]) -> None:
        self._state, self._notify = _IDS["unconfigured"], notify

    @property
    def current_state(self) -> tuple[int, str]:
        return self._state, STATES[self._state]

    @property
    def available_transitions(self) -> list[Step]:
        return [step for step in STEPS if step.start == self._state]

    def get_transition_by_label(self, label: str) -> int:
        for step in self.available_transitions:
            if step.label == label:
                return step.id
        raise RCLError("Failed to get transition from label")

    def trigger_transition_by_id(self, transition_id: int, publish_update: bool) -> None:
        self._go([step for step in self.available_transitions if step.id == transition_id], f"id {transition_id}")

    def trigger_transition_by_label(self, label: str, publish_update: bool) -> None:
        self._go([step for step in self.available_transitions if step.label == label], repr(label))

    def _go(self, steps: list[Step], what: str) -> None:
        if not steps:
            state = STATES[self._state]
            raise RCLError(
                f"Failed to trigger lifecycle state machine transition: no transition matching {what} found for "
                f"current state {state}"
            )
        self._state = steps[0].goal
        self._notify(steps[0])
