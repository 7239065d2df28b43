"""Temporal rules: formulas over atoms, their monitors, and how far each can be enforced."""

from kizzasi_edge.guardrails.temporal.atoms import Comparison, compile_atoms, parse_atom
from kizzasi_edge.guardrails.temporal.classes import (
    CommandRows,
    Deadline,
    Monitored,
    StateRows,
    UntilRows,
    classify,
)
from kizzasi_edge.guardrails.temporal.monitors import Monitor
from kizzasi_edge.guardrails.temporal.syntax import Formula, Verdict3, parse

__all__ = [
    "CommandRows",
    "Comparison",
    "Deadline",
    "Formula",
    "Monitor",
    "Monitored",
    "StateRows",
    "UntilRows",
    "Verdict3",
    "classify",
    "compile_atoms",
    "parse",
    "parse_atom",
]
