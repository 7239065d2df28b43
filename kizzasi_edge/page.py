"""Self-contained HTML pages with figures: the demo's report and the guard's explore page."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING

from kizzasi_edge.errors import MissingExtra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:68rem;margin:2rem auto;padding:0 1rem;color:#222}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse}td,th{padding:.2rem .8rem;
text-align:left;border-bottom:1px solid #ddd}img{max-width:100%}.ok{color:#087a3c;font-weight:600}.bad{color:#b00020;
font-weight:600}pre{background:#f6f6f6;padding:1rem;overflow-x:auto;font-size:.85rem}"""


def head(title: str) -> str:
    """How every page begins."""
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title><style>{_STYLE}</style>"
    )


def figure(height: float) -> Figure:
    """An empty figure, 11 by ``height`` inches (no pyplot: no global state, no display). Raises MissingExtra."""
    try:
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise MissingExtra("plots need matplotlib: pip install 'kizzasi-edge[sim]'") from exc
    return Figure(figsize=(11, height), layout="constrained")


def section(title: str, plot: Figure) -> str:
    """A heading and the figure below it."""
    buffer = io.BytesIO()
    plot.savefig(buffer, format="png", dpi=110)
    name = html.escape(title, quote=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"<h2>{name}</h2><img alt='{name}' src='data:image/png;base64,{data}'>"
