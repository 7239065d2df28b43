"""Learn who is behind the port: HELLO, then the schema unless its hash is already known. Sans-I/O.

Driven by the reader thread: frames come in by ``on_hello``/``on_schema_data``, time by ``tick``; requests
go out through ``send``. Every request is repeated until it is answered, because a board that has just been
opened may still be in its boot loader.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

from .errors import WireError
from .frame import MAX_PAYLOAD, PROTOCOL_MAJOR, PROTOCOL_MINOR
from .protocol import Hello, MsgType, SchemaData, SchemaGet
from .schema import Schema

__all__ = ["Handshake"]

_RETRY_S = 0.15
_CHUNK = MAX_PAYLOAD - 2  # SCHEMA_DATA carries its offset in front


class Handshake:
    """State of the introduction on the present connection.

    Attributes:
        hello: the newest HELLO, None before the first.
        schema: the calibration table that ``hello.schema_hash`` names, None until it is complete.
        problem: why this device cannot be used, in words; None while nothing speaks against it.
        hellos: how many HELLOs have arrived, over all connections.
    """

    def __init__(self, send: Callable[[int, bytes], object]) -> None:
        self.hello: Hello | None = None
        self.schema: Schema | None = None
        self.problem: str | None = None
        self.hellos = 0
        self._send = send
        self._known: dict[int, Schema] = {}
        self._table = bytearray()
        self._retry_at = 0.0

    @property
    def done(self) -> bool:
        """HELLO and its schema are here and fit each other."""
        return self.schema is not None

    def restart(self) -> None:
        """A new connection: whoever answers is a stranger until its HELLO."""
        self.hello = self.schema = self.problem = None
        self._table.clear()
        self._retry_at = 0.0

    def ask_hello(self) -> None:
        """Request a fresh HELLO."""
        self._send(MsgType.HELLO_REQ, bytes((PROTOCOL_MAJOR, PROTOCOL_MINOR)))

    def tick(self, now_s: float) -> None:
        """Repeat whatever is unanswered."""
        if self.done or now_s < self._retry_at:
            return
        self._retry_at = now_s + _RETRY_S
        if self.hello is None or self.problem is not None:
            self.ask_hello()
        else:
            self._ask_schema(self.hello)

    def on_hello(self, hello: Hello) -> None:
        """Adopt ``hello``; fetch the schema if its hash is new."""
        self.hellos += 1
        changed = self.hello is None or self.hello.schema_hash != hello.schema_hash
        self.hello = hello
        if hello.major != PROTOCOL_MAJOR:
            self.schema = None
            self.problem = f"it speaks protocol {hello.major}.{hello.minor}, this host {PROTOCOL_MAJOR}.x"
            return
        if changed:
            self.problem = None
            self._table.clear()
            self.schema = self._known.get(hello.schema_hash)
            if self.schema is None:
                self._ask_schema(hello)

    def on_schema_data(self, chunk: SchemaData) -> None:
        """Append a chunk; check hash, format and channel counts once the table is complete."""
        hello = self.hello
        if hello is None or self.done or chunk.offset != len(self._table) or not chunk.data:
            return  # an answer to a request that was repeated or belongs to another device
        self._table += chunk.data
        if len(self._table) < hello.schema_len:
            self._ask_schema(hello)
            return
        table = bytes(self._table[: hello.schema_len])
        self._table.clear()
        if zlib.crc32(table) != hello.schema_hash:
            self.problem = f"its schema ({len(table)} bytes) does not match the hash in its HELLO"
            return
        try:
            schema = Schema.from_bytes(table)
        except WireError as error:
            self.problem = str(error)
            return
        counts = len(schema.channels), len(schema.sensors)
        if counts != (hello.n_channels, hello.n_sensors):
            self.problem = (
                f"its schema names {counts[0]} channels and {counts[1]} sensors, its HELLO "
                f"{hello.n_channels} and {hello.n_sensors}"
            )
            return
        self.problem = None
        self._known[hello.schema_hash] = self.schema = schema

    def _ask_schema(self, hello: Hello) -> None:
        offset = len(self._table)
        self._send(MsgType.SCHEMA_GET, SchemaGet(offset, min(_CHUNK, hello.schema_len - offset)).pack())
