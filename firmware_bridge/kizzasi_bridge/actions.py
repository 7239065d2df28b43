"""What ``kizzasi-bridge send`` does: one action, and the state that the board shows after it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .errors import ConnectorError, LinkError
from .holder import ask_holder, control_socket_of
from .protocol import Fault, NodeState
from .request import code_name

if TYPE_CHECKING:
    from .link import Link

__all__ = ["Action", "perform"]

Action = Literal["estop", "clear", "arm", "disarm"]

_CONFIRM_S = 2.0


def perform(action: Action, link: Link, socket: Path | None) -> tuple[dict[str, object], str]:
    """Do ``action`` over the closed ``link`` or, if somebody holds its port, over his control socket (``socket``, else
    the one found by itself). What it led to, as data and in words.

    Raises:
        ConnectorError: neither can be reached, or the run behind the socket refuses.
        LinkError: the board refuses, or does not show it in time.
    """
    try:
        if socket is None:
            link.open()
    except LinkError:
        raise
    except ConnectorError:
        socket = control_socket_of(link.port)
        if socket is None:
            raise
    if socket is not None:
        return ask_holder(socket, action), f"done by the run behind {socket}"
    with link:
        return _over_port(link, action)


def _over_port(link: Link, action: Action) -> tuple[dict[str, object], str]:
    """Do ``action``; the state that the board shows after it."""
    if action == "estop":
        link.estop()
        deadline = time.monotonic() + _CONFIRM_S
        while link.estop_pending:
            if time.monotonic() > deadline:
                raise LinkError(f"port {link.port}: ESTOP was sent for {_CONFIRM_S:g} s and STATE does not show it")
            link.wait_state(link.latest.count if link.latest else 0, 0.02)
            link.heartbeat()  # repeats the ESTOP while it is not confirmed
    elif action == "arm":
        link.arm()
    elif action == "disarm":
        link.disarm()
    else:
        link.clear()
    state = link.wait_state(link.latest.count if link.latest else 0, _CONFIRM_S)
    if state is None:
        raise LinkError(f"port {link.port}: {action} was accepted, but no STATE arrives")
    done: dict[str, object] = {
        "state": code_name(NodeState, state.state),
        "fault": code_name(Fault, state.fault),
        "session": state.session,
    }
    text = f"board is in {done['state']}" + (f", fault {done['fault']}" if state.fault else "")
    if action == "arm":
        text += f", session {state.session:#010x}; without a COMMAND it goes to FAILSAFE"
    return done, text
