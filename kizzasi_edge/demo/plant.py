"""The plant process: the simulated arm behind the firmware's sensor and actuator hooks.

Stands where the robot stands: the POSIX board connects to a unix socket and, once a tick of its own virtual
time, says what its outputs are and waits for what the sensors read (lock-step, so a stalled machine cannot bend
the physics). Runs as ``python -m kizzasi_edge.demo.plant``; writes the trace (npz) and the summary (JSON beside
it) when the board hangs up or on SIGTERM.

Protocol, little-endian: board → plant ``u32 t_us, u32 dt_us, u8 enabled, u8 state, u8 boundary, u8 n, u32
session, i32 out[n], i32 applied[n]``; plant → board ``u8 flags, u8 m, u16 0, i32 sensors[m]``.
"""

from __future__ import annotations

import argparse
import gc
import json
import signal
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from kizzasi_edge.demo.physics import ASSETS, QUANTUM, ArmPhysics
from kizzasi_edge.demo.witness import Lattice, LimitWitness, Trace, raw_limits
from kizzasi_edge.errors import KizzasiError, WireError

__all__ = ["REQUEST", "Plant", "main"]

REQUEST = struct.Struct("<IIBBBBI")
_REPLY = struct.Struct("<BBH")


class Plant:
    """The arm, its witness and its trace; `tick` is one exchange of the protocol.

    Args:
        arm: the physics.  witness: counts violations.  trace: records each period.
    """

    def __init__(self, arm: ArmPhysics, witness: LimitWitness, trace: Trace) -> None:
        self.arm, self.witness, self.trace = arm, witness, trace
        self.n = len(arm.joints)
        self._busy_us = np.zeros(4096)
        self.ticks = 0

    def tick(self, request: bytes | memoryview) -> bytes:
        """Advance the physics as one request asks; returns the reply.

        Raises:
            WireError: the request is for another number of channels.
        """
        began = time.perf_counter_ns()
        t_us, dt_us, enabled, state, boundary, n, _session = REQUEST.unpack_from(request)
        if n != self.n:
            raise WireError(f"plant request: found {n} channels, expected {self.n}")
        values = np.frombuffer(request, np.int32, 2 * n, REQUEST.size)
        out, applied = values[:n], values[n:]
        arm = self.arm
        arm.step(out.astype(np.float64) * QUANTUM, dt_us, bool(enabled))
        self.witness.see_motion(arm.q, arm.qvel)
        measured = arm.measure()
        if boundary:
            self.witness.see_setpoint(applied, bool(enabled))
            self.trace.add(
                t_us=t_us,
                state=state,
                enabled=enabled,
                q=arm.q,
                qvel=arm.qvel,
                out=out,
                applied=applied,
                measured=measured,
            )
        self._busy_us[self.ticks % self._busy_us.size] = (time.perf_counter_ns() - began) * 1e-3
        self.ticks += 1
        return _REPLY.pack(0, n, 0) + measured.tobytes()

    def summary(self) -> dict[str, Any]:
        """The witness's counts, with what a tick cost [µs] over the latest 4096 ticks."""
        busy = self._busy_us[: min(self.ticks, self._busy_us.size)]
        cost = {name: float(np.percentile(busy, p)) for name, p in (("p50", 50), ("p99", 99))} if self.ticks else {}
        return {
            "ticks": self.ticks,
            "tick_us": cost,
            "trace_rows": self.trace.rows,
            "trace_dropped": self.trace.dropped,
            **self.witness.summary(self.arm.joints),
        }


def _read_exactly(connection: socket.socket, buffer: memoryview) -> bool:
    """Fill the buffer; False when the board has hung up."""
    got = 0
    while got < len(buffer):
        try:
            count = connection.recv_into(buffer[got:])
        except ConnectionResetError:
            return False
        if count == 0:
            return False
        got += count
    return True


def serve(plant: Plant, listener: socket.socket) -> None:
    """Answer one board until it hangs up."""
    connection, _ = listener.accept()
    with connection:
        buffer = memoryview(bytearray(REQUEST.size + 8 * plant.n))
        while _read_exactly(connection, buffer):
            try:
                connection.sendall(plant.tick(buffer))
            except BrokenPipeError:
                return


class _StopError(Exception):
    """SIGTERM arrived."""


def _stop(_signal: int, _frame: object) -> None:
    raise _StopError


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m kizzasi_edge.demo.plant", description="The simulated arm behind the firmware."
    )
    parser.add_argument("--socket", required=True, help="unix socket to listen on")
    parser.add_argument("--joints-from", default=str(ASSETS / "arm.xml"), help="MJCF with one servo a joint")
    parser.add_argument("--urdf", default=str(ASSETS / "arm.urdf"), help="the raw limits to watch")
    parser.add_argument("--lattice", help="JSON: the guard's integers lo, hi, w, h a channel")
    parser.add_argument("--noise", type=float, default=0.001, help="encoder noise, standard deviation in rad")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--initial", help="comma-separated joint positions in rad (default: all zero)")
    parser.add_argument("--trace", required=True, help="npz to write; the summary goes beside it as .json")
    parser.add_argument("--trace-rows", type=int, default=100_000, help="periods to keep")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the process; returns its exit status (0 after a board hung up or SIGTERM, 1 on an error)."""
    args = _arguments(argv)
    try:
        arm = ArmPhysics(args.joints_from, noise=args.noise, seed=args.seed)
        n = len(arm.joints)
        initial = [0.0] * n if args.initial is None else [float(value) for value in args.initial.split(",")]
        if len(initial) != n:
            raise WireError(f"--initial: found {len(initial)} values, expected {n}")
        arm.reset(initial)
        lattice = None if args.lattice is None else Lattice.load(args.lattice, arm.joints)
        plant = Plant(arm, LimitWitness(raw_limits(args.urdf, arm.joints), lattice), Trace(n, args.trace_rows))
    except (KizzasiError, ValueError) as error:
        sys.stderr.write(f"plant: {error}\n")
        return 1
    signal.signal(signal.SIGTERM, _stop)
    gc.collect()
    gc.freeze()
    gc.disable()
    status = 0
    path = Path(args.socket)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(path))
            listener.listen(1)
            serve(plant, listener)
    except _StopError:
        pass
    except (KizzasiError, OSError) as error:
        sys.stderr.write(f"plant: {error}\n")
        status = 1
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        path.unlink(missing_ok=True)
        plant.trace.save(args.trace, joints=arm.joints, quantum=QUANTUM)
        Path(args.trace).with_suffix(".json").write_text(json.dumps(plant.summary(), indent=1))
    return status


if __name__ == "__main__":
    raise SystemExit(main())
