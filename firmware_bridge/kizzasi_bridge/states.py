"""STATE pages → one :class:`State` for each period, with the step that the node has just applied."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import WireError
from .frame import MAX_PAYLOAD
from .protocol import VALUES_PER_PAGE
from .protocol import State as Page

__all__ = ["State", "StateAssembler"]

_U32 = 0xFFFFFFFF
_I32 = np.iinfo(np.int32)
_HEADER = MAX_PAYLOAD - 4 * VALUES_PER_PAGE


@dataclass(frozen=True, slots=True)
class State:
    """What the node says about one period boundary. The arrays belong to this object and are read-only.

    Attributes:
        count: how many STATEs this link has received, this one included.
        recv_ns: ``time.monotonic_ns()`` when its last byte was read.
        t_us: the node's clock when the sensors were sampled (u32, wraps every 71.6 min).
        state: a NodeState; fault: a Fault; nonce: what ARM and CLEAR must echo;
        session: the present one while ARMED, the last one until READY, else 0.
        applied_seq: frame seq of the newest COMMAND that was applied.
        clamp_mask: bit i: the node's guard had to change what COMMAND asked of channel i.
        rx_errors, ignored, misses, stale: counters of the node, u16, wrapping.
        applied: setpoints applied at this boundary, int32 (n,), raw.
        step: ``applied`` minus that of the period before, int32 (n,), raw; the rounded mean over the
            elapsed periods where STATEs were lost; 0 for the first STATE of a connection.
        sensors: sampled at ``t_us``, int32 (m,), raw.
    """

    count: int
    recv_ns: int
    t_us: int
    state: int
    fault: int
    nonce: int
    session: int
    applied_seq: int
    clamp_mask: int
    rx_errors: int
    ignored: int
    misses: int
    stale: int
    applied: NDArray[np.int32]
    step: NDArray[np.int32]
    sensors: NDArray[np.int32]


class StateAssembler:
    """Joins the pages of a STATE and differentiates the applied setpoints.

    Attributes:
        count: complete STATEs so far, over all connections.
        lost: periods without a complete STATE, by the node's own sample times.
    """

    def __init__(self) -> None:
        self.count = 0
        self.lost = 0
        self._n = self._m = self._period_us = 0
        self._parts: list[NDArray[np.int32]] = []
        self._sample_t_us = 0
        self._previous: State | None = None

    def restart(self, n_channels: int, n_sensors: int) -> None:
        """A new connection or a rebooted device: the next STATE has no predecessor."""
        self._n, self._m = n_channels, n_sensors
        self._parts = []
        self._previous = None

    def set_period(self, period_us: int) -> None:
        """Committed command period in µs; 0 while there is none (then nothing counts as lost)."""
        self._period_us = period_us

    def feed(self, payload: bytes, recv_ns: int) -> State | None:
        """The State that this page completes, if it completes one.

        Raises:
            WireError: a malformed page, or another number of values than the schema announces.
        """
        page = Page.unpack(payload[:_HEADER])  # its values are read by numpy, in one piece
        if len(payload) % 4:
            raise WireError(f"STATE: payload of {len(payload)} bytes, expected {_HEADER} + 4·values")
        if page.page == 0:
            self._parts = []
            self._sample_t_us = page.sample_t_us
        if page.page != len(self._parts) or page.sample_t_us != self._sample_t_us:
            self._parts = []  # a page was lost: what is left of this STATE is useless
            return None
        self._parts.append(np.frombuffer(payload, dtype="<i4", offset=_HEADER))
        if len(self._parts) < page.n_pages:
            return None
        values = self._parts[0] if page.n_pages == 1 else np.concatenate(self._parts)
        self._parts = []
        if len(values) != self._n + self._m:
            raise WireError(
                f"STATE: {len(values)} values on {page.n_pages} pages, expected {self._n} applied + {self._m} sensors"
            )
        return self._finish(page, values, recv_ns)

    def _finish(self, head: Page, values: NDArray[np.int32], recv_ns: int) -> State:
        values.flags.writeable = False
        applied = values[: self._n]
        step = self._step(applied, head.sample_t_us)
        step.flags.writeable = False
        self.count += 1
        state = State(
            count=self.count,
            recv_ns=recv_ns,
            t_us=head.sample_t_us,
            state=head.state,
            fault=head.fault,
            nonce=head.nonce,
            session=head.session,
            applied_seq=head.applied_seq,
            clamp_mask=head.clamp_mask,
            rx_errors=head.rx_errors,
            ignored=head.ignored,
            misses=head.misses,
            stale=head.stale,
            applied=applied,
            step=step,
            sensors=values[self._n :],
        )
        self._previous = state
        return state

    def _step(self, applied: NDArray[np.int32], t_us: int) -> NDArray[np.int32]:
        previous = self._previous
        if previous is None:
            return np.zeros(self._n, dtype=np.int32)
        periods = 1
        if self._period_us:
            elapsed_us = (t_us - previous.t_us) & _U32
            periods = max(1, (elapsed_us + self._period_us // 2) // self._period_us)
            self.lost += periods - 1
        if periods == 1:
            # Wraps only for a jump of more than 2³¹ quanta, which no guarded channel can make.
            return applied - previous.applied
        mean = np.rint((applied.astype(np.int64) - previous.applied) / periods)
        return np.clip(mean, _I32.min, _I32.max).astype(np.int32)
