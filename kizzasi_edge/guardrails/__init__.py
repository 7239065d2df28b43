"""Guardrails: every command obeys the declared limits, or is not sent."""

from kizzasi_edge.guardrails.builder import Builder
from kizzasi_edge.guardrails.faults import Event, State
from kizzasi_edge.guardrails.stack import Guardrails
from kizzasi_edge.guardrails.verdict import Status, Verdict

__all__ = ["Builder", "Event", "Guardrails", "State", "Status", "Verdict"]
