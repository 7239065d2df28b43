"""Guardrails: every command obeys the declared limits, or is not sent."""

from kizzasi_edge.guardrails.stack import Builder, Guardrails
from kizzasi_edge.guardrails.verdict import Status, Verdict

__all__ = ["Builder", "Guardrails", "Status", "Verdict"]
