"""A session of Zenoh, and what it tells of itself: who it is connected to, and which nodes are there."""

from __future__ import annotations

import threading
from typing import Any

import zenoh
from zenoh.handlers import Callback

from kizzasi_edge.errors import ConfigError, ConnectorError
from kizzasi_edge.ros2.zenoh_domain import ZenohDomain
from kizzasi_edge.ros2.zenoh_keys import ADMIN, PUBLISHER, SUBSCRIPTION, Token


def open_session(domain: ZenohDomain) -> Any:
    """Raises :class:`ConfigError` for settings that Zenoh does not take, :class:`ConnectorError` where it cannot open
    (as a client: no router answers; an address that is in use)."""
    try:
        config = zenoh.Config() if domain.file is None else zenoh.Config.from_file(domain.file)
    except zenoh.ZError as exc:
        raise ConfigError(f"{domain.file}: {reason(exc)}") from exc
    for key, value in domain.overrides():
        try:
            config.insert_json5(key, value)
        except zenoh.ZError as exc:
            raise ConfigError(f"{domain}: {key}: found {value}: {reason(exc)}") from exc
    try:
        return zenoh.open(config)
    except zenoh.ZError as exc:
        raise ConnectorError(f"{domain}: {reason(exc)}") from exc


def reason(exc: Exception) -> str:
    """Zenoh's words without the place in its source."""
    return str(exc).partition("  at /")[0].strip()


def direct(callback: Any) -> Any:
    """A callback that runs on the very thread that received: a thread of Python's between them would cost time, an
    unbounded queue, and a process that never ends if it forgets to close."""
    return Callback(callback, indirect=False)


class Links:
    """Who this session is connected to, and how often one of them went away."""

    def __init__(self, session: Any) -> None:
        self._there: set[str] = set()
        self._lost = 0
        self._listener = session.info.declare_transport_events_listener(direct(self._event), history=True)

    @property
    def counters(self) -> dict[str, int]:
        """``connected``: routers, peers and clients now; ``disconnected``: how often one was lost."""
        return {"connected": len(self._there), "disconnected": self._lost}

    def _event(self, event: Any) -> None:
        who = str(event.transport.zid)
        if event.kind == zenoh.SampleKind.PUT:
            self._there.add(who)
        elif who in self._there:
            self._there.remove(who)
            self._lost += 1


class Tokens:
    """The graph of one domain, followed by its liveliness tokens; our own are among them."""

    def __init__(self, session: Any, domain_id: int) -> None:
        self._known: dict[str, Token] = {}
        self._lock = threading.Lock()
        self._subscriber = session.liveliness().declare_subscriber(
            f"{ADMIN}/{domain_id}/**", direct(self._change), history=True
        )

    def all(self) -> list[Token]:
        with self._lock:
            return list(self._known.values())

    def matched(self, token: Token) -> int:
        """How many endpoints there are at the other end of ours."""
        other = SUBSCRIPTION if token.kind == PUBLISHER else PUBLISHER
        ours = (other, token.topic, token.type, token.hash)
        return sum((end.kind, end.topic, end.type, end.hash) == ours for end in self.all())

    def _change(self, sample: Any) -> None:
        key = str(sample.key_expr)
        with self._lock:
            if sample.kind == zenoh.SampleKind.DELETE:
                self._known.pop(key, None)
            elif (token := Token.parse(key)) is not None:
                self._known[key] = token
