"""Formulas whose value at a period is known only later: nodes that settle each instant as soon as anything decides it.

Values are -1 false, 0 unknown, 1 true (strong Kleene), one per period, in rings as long as the whole formula looks
ahead. An instant is settled once and told to the nodes above; each node does work in proportion to the instants that
it settles, so a step costs O(1) amortised however long the intervals are. Instants settle out of order: a violation
is known at once even while an older instant is pending.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Listener = Callable[[int, int], None]


@dataclass(slots=True)
class Clock:
    """The present period ``t`` (-1: none yet) and the length of all rings, a power of two."""

    t: int
    size: int


class Node:
    """A subformula. ``value(k)`` for the present period, the one after it, and those before within the ring."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.mask = clock.size - 1
        self.ring = [0] * clock.size
        self.listeners: list[tuple[Listener, int]] = []

    def value(self, k: int) -> int:
        return self.ring[k & self.mask]

    def clear(self, k: int) -> None:
        self.ring[k & self.mask] = 0

    def settle(self, k: int, value: int) -> None:
        if k >= 0 and not self.ring[k & self.mask]:
            self.ring[k & self.mask] = value
            for listener, sign in self.listeners:
                listener(k, sign * value)


@dataclass(frozen=True, slots=True)
class Ref:
    """A node or (``sign`` -1) its negation."""

    node: Node
    sign: int = 1

    def value(self, k: int) -> int:
        return self.sign * self.node.value(k)

    def tell(self, listener: Listener) -> None:
        self.node.listeners.append((listener, self.sign))

    def __neg__(self) -> Ref:
        return Ref(self.node, -self.sign)


class And(Node):
    def __init__(self, clock: Clock, left: Ref, right: Ref) -> None:
        super().__init__(clock)
        self.left, self.right = left, right
        left.tell(self.hear)
        right.tell(self.hear)

    def hear(self, k: int, value: int) -> None:
        if value < 0:
            self.settle(k, -1)
        elif self.left.value(k) > 0 and self.right.value(k) > 0:
            self.settle(k, 1)


class Later(Node):
    """The argument, ``periods`` later."""

    def __init__(self, clock: Clock, periods: int, arg: Ref) -> None:
        super().__init__(clock)
        self.periods = periods
        arg.tell(self.hear)

    def hear(self, k: int, value: int) -> None:
        self.settle(k - self.periods, value)


class Within(Node):
    """The argument holds at some period of [k + lo, k + hi].

    True settles a range of instants: ``later`` skips the settled ones (union-find with path halving). False settles
    those whose whole interval lies in a run of false arguments: ``first`` (kept at a run's last period) and ``last``
    (kept at its first) join runs.
    """

    def __init__(self, clock: Clock, lo: int, hi: int, arg: Ref) -> None:
        super().__init__(clock)
        self.lo, self.hi = lo, hi
        self.later = list(range(clock.size))
        self.first: list[int | None] = [None] * clock.size
        self.last: list[int | None] = [None] * clock.size
        arg.tell(self.hear)

    def clear(self, k: int) -> None:
        i = k & self.mask
        self.ring[i] = 0
        self.later[i] = k
        self.first[i] = self.last[i] = None

    def settle(self, k: int, value: int) -> None:
        if k >= 0 and not self.ring[k & self.mask]:
            self.later[k & self.mask] = k + 1
            super().settle(k, value)

    def unsettled(self, k: int) -> int:
        """The first unsettled instant from ``k`` on."""
        later, mask = self.later, self.mask
        while (after := later[k & mask]) != k:
            if after <= self.clock.t:
                later[k & mask] = later[after & mask]
            k = after
        return k

    def hear(self, k: int, value: int) -> None:
        if value > 0:
            instant = self.unsettled(max(k - self.hi, 0))
            while instant <= k - self.lo:
                self.settle(instant, 1)
                instant = self.unsettled(instant + 1)
            return
        first = self.first[(k - 1) & self.mask] if k else None
        last = self.last[(k + 1) & self.mask] if k < self.clock.t else None
        first, last = k if first is None else first, k if last is None else last
        self.first[last & self.mask] = first
        if first > self.clock.t - self.clock.size + 1:
            self.last[first & self.mask] = last
        width = self.hi - self.lo
        for instant in range(max(first, k - width) - self.lo, min(last, k + width) - self.hi + 1):
            self.settle(instant, -1)


class Unless(Node):
    """``left`` holds up to a period where ``right`` does, or for ever: right ∨ (left ∧ next unless)."""

    def __init__(self, clock: Clock, left: Ref, right: Ref) -> None:
        super().__init__(clock)
        self.left, self.right = left, right
        left.tell(self.hear)
        right.tell(self.hear)

    def hear(self, k: int, _: int) -> None:
        oldest = max(0, self.clock.t - self.clock.size + 2)
        while k >= oldest and not self.value(k):
            left, right, after = self.left.value(k), self.right.value(k), self.value(k + 1)
            if right > 0 or (left > 0 and after > 0):
                self.settle(k, 1)
            elif right < 0 and (left < 0 or after < 0):
                self.settle(k, -1)
            else:
                return
            k -= 1


class Top:
    """The verdict of a formula at period 0. ``remaining``: periods until its oldest pending instant is decided."""

    value = 0

    def step(self) -> None:
        """After all nodes have heard this period."""

    def remaining(self) -> float:
        return float("inf")

    def reset(self) -> None:
        self.value = 0


class Instant(Top):
    """A formula that is decided within ``horizon`` periods."""

    def __init__(self, clock: Clock, arg: Ref, horizon: int) -> None:
        self.clock, self.horizon = clock, horizon
        arg.tell(self.hear)

    def hear(self, k: int, value: int) -> None:
        if k == 0:
            self.value = value

    def remaining(self) -> float:
        return self.horizon - self.clock.t


class Sometime(Top):
    """The argument holds at some period from ``lo`` on. Its negation is ``always``."""

    def __init__(self, clock: Clock, lo: int, arg: Ref, horizon: int) -> None:
        self.clock, self.lo, self.arg, self.horizon = clock, lo, arg, horizon
        self.oldest = lo
        arg.tell(self.hear)

    def hear(self, k: int, value: int) -> None:
        if value > 0 and k >= self.lo:
            self.value = 1

    def step(self) -> None:
        while self.oldest <= self.clock.t and self.arg.value(self.oldest):
            self.oldest += 1

    def remaining(self) -> float:
        return self.oldest + self.horizon - self.clock.t if self.oldest <= self.clock.t else float("inf")

    def reset(self) -> None:
        self.value, self.oldest = 0, self.lo


class Until0(Top):
    """``left`` holds from ``lo`` up to a period where ``right`` does.

    ``left`` is true on [lo, held), ``right`` false on [lo, failed): the verdict is known when ``right`` is true
    within the first or at its end, or ``left`` false within the second.
    """

    def __init__(self, clock: Clock, lo: int, left: Ref, right: Ref, horizon: int) -> None:
        self.clock, self.lo, self.left, self.right, self.horizon = clock, lo, left, right, horizon
        self.held = self.failed = lo
        left.tell(self.hear_left)
        right.tell(self.hear_right)

    def hear_left(self, k: int, value: int) -> None:
        if value < 0 and self.lo <= k < self.failed and not self.value:
            self.value = -1

    def hear_right(self, k: int, value: int) -> None:
        if value > 0 and self.lo <= k <= self.held and not self.value:
            self.value = 1

    def step(self) -> None:
        while not self.value and self.held <= self.clock.t and self.left.value(self.held) > 0:
            self.held += 1
            if self.held <= self.clock.t and self.right.value(self.held) > 0:
                self.value = 1
        while not self.value and self.failed <= self.clock.t and self.right.value(self.failed) < 0:
            if self.left.value(self.failed) < 0:
                self.value = -1
            self.failed += 1

    def remaining(self) -> float:
        oldest = min(self.held, self.failed)
        return oldest + self.horizon - self.clock.t if oldest <= self.clock.t else float("inf")

    def reset(self) -> None:
        self.value, self.held, self.failed = 0, self.lo, self.lo


class Both(Top):
    """Two verdicts, each with a sign: their conjunction."""

    def __init__(self, parts: tuple[tuple[Top, int], ...]) -> None:
        self.parts = parts

    def step(self) -> None:
        for part, _ in self.parts:
            part.step()
        self.value = min(sign * part.value for part, sign in self.parts)

    def remaining(self) -> float:
        return min((part.remaining() for part, _ in self.parts if not part.value), default=float("inf"))

    def reset(self) -> None:
        self.value = 0
        for part, _ in self.parts:
            part.reset()
