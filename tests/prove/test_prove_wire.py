"""The wire against noise, mutation and a bad line: firmware_bridge/c/prove/fuzz_*.c, the codec, the real link."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from bad_line import BadLine, Witness
from recorded import SESSIONS, Recorder
from tap import Tap
from test_codec_differential import same_damage, same_frames
from test_session_soak import soak

from kizzasi_bridge import Decoder, LinkError
from kizzasi_bridge.board import PosixBoard
from kizzasi_bridge.link import Link
from kizzasi_bridge.protocol import ChannelLimits, Limits, NodeState
from kizzasi_bridge.schema import Schema

C = Path(__file__).parents[2] / "firmware_bridge" / "c"
FUZZERS = {
    "decoder": ["prove/fuzz_decoder.c", "kz_wire.c"],
    "node": ["prove/fuzz_node.c", "kz_node.c", "kz_channel.c", "kz_wire.c", "kz_guard.c"],
}
LONGEST = {"decoder": 600, "node": 200}  # bytes of input: two frames too long for the decoder; speed for the node
SIZES = ["-DKZ_NODE_CH=2", "-DKZ_NODE_SENSORS=3"]
FLAGS = ["-std=c99", "-g", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unused"]
SANITIZERS = ["-fsanitize=address,undefined", "-fsanitize-trap=undefined"]
# Comparisons are not traced: that took two thirds of the time, and no input has to guess a number here. In the node's
# fuzzer the wire is not what is explored.
GUIDED = ["-fsanitize=fuzzer-no-link", "-fno-sanitize-coverage=trace-cmp"]
EXECUTIONS = 100_000_000
CORES = len(os.sched_getaffinity(0))


def report(**figures: object) -> None:
    sys.stdout.write(f"\n{json.dumps(figures)}\n")


# ---- fuzzing -------------------------------------------------------------------------------------------------


def fuzzer(directory: Path, name: str, old: str = "", new: str = "") -> Path:
    """The libFuzzer program, of a changed source if ``old`` is given."""
    if shutil.which("clang") is None:
        pytest.skip("needs clang with libFuzzer (Debian: clang, libclang-rt-14-dev)")
    target, first, *rest = (C / source for source in FUZZERS[name])
    if old:
        text = first.read_text()
        assert text.count(old) == 1
        first = directory / first.name
        first.write_text(text.replace(old, new))
    program = directory / f"fuzz_{name}"
    objects = []
    for source in (target, first, *rest):
        guided = [] if name == "node" and source.name == "kz_wire.c" else GUIDED
        objects.append(str(directory / f"{source.stem}.o"))
        command = ["clang", *FLAGS, *SANITIZERS, *guided, *SIZES, f"-I{C}", "-c", str(source), "-o", objects[-1]]
        subprocess.run(command, check=True)
    subprocess.run(["clang", *SANITIZERS, "-fsanitize=fuzzer", *objects, "-o", str(program)], check=True)
    return program


def fuzz(program: Path, directory: Path, name: str, executions: int) -> tuple[int, str, int]:
    """Exit status, messages and size of the corpus, which begins with the recorded sessions."""
    corpus = directory / "corpus"
    corpus.mkdir()
    for session, live in SESSIONS.items():
        node = Recorder()
        node.arm()
        live(node)
        (corpus / session).write_bytes(node.log)
    options = [f"-runs={executions}", f"-max_len={LONGEST[name]}", "-seed=1"]
    done = subprocess.run(
        [str(program), *options, str(corpus)], capture_output=True, text=True, check=False, cwd=directory
    )
    return done.returncode, done.stderr, len(list(corpus.iterdir()))


def test_real_sessions_end_in_the_fuzzed_node_as_they_did(tmp_path: Path) -> None:
    """Else the fuzzer's corpus would begin with nothing but refusals. Sanitizers watch here too."""
    program = tmp_path / "replay"
    sources = [str(C / source) for source in FUZZERS["node"]]
    checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover"]
    subprocess.run(
        ["cc", "-std=c99", "-DREPLAY", "-Wall", "-Wextra", "-Werror", *checks, *SIZES, *sources, "-o", str(program)],
        check=True,
    )
    ends = set()
    for name, live in SESSIONS.items():
        node = Recorder()
        node.arm()
        live(node)
        node.tick(2)
        assert node.state is not None
        (tmp_path / name).write_bytes(node.log)
        done = subprocess.run([str(program), str(tmp_path / name)], capture_output=True, text=True, check=True)
        assert int(done.stdout) == node.state.state, name
        ends.add(node.state.state)
    assert ends == {NodeState.READY, NodeState.ESTOP}


@pytest.mark.prove
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("name", FUZZERS)
def test_fuzzing(tmp_path: Path, name: str) -> None:
    program, began = fuzzer(tmp_path, name), time.monotonic()
    rc, messages, corpus = fuzz(program, tmp_path, name, EXECUTIONS)
    assert rc == 0, messages[-4000:]
    report(fuzzer=name, executions=EXECUTIONS, seconds=round(time.monotonic() - began), corpus=corpus)


@pytest.mark.prove
@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("decoder", "if (d->n == KZ_MAX_BODY) {", "if (d->n > KZ_MAX_BODY) {"),
        ("decoder", "if (d->started && !d->skip)", "if (d->started)"),
        ("node", "if (nonce != n->nonce) return KZ_ACK_WRONG_NONCE;\n  if (n->inputs", "if (n->inputs"),
        ("node", "if (p[0] >= n->board->n_channels || p[1]", "if (p[1]"),
        ("node", "n->deadline = obs + ", "n->deadline = n->now + "),
    ],
)
def test_the_fuzzer_finds_mistakes(tmp_path: Path, name: str, old: str, new: str) -> None:
    rc, _, _ = fuzz(fuzzer(tmp_path, name, old, new), tmp_path, name, 1_000_000)
    assert rc != 0


# ---- the codec -----------------------------------------------------------------------------------------------


@pytest.mark.prove
@pytest.mark.timeout(3600)
def test_a_million_frames_and_a_million_damaged_streams() -> None:
    parts = 20
    with ProcessPoolExecutor(CORES) as pool:
        frames = [pool.submit(same_frames, 1_000_000 // parts, 100 + k) for k in range(parts)]
        damage = [pool.submit(same_damage, 1_000_000 // parts, 200 + k) for k in range(parts)]
        for done in frames:
            done.result()
        accepted, rejected, foreign = (sum(column) for column in zip(*(d.result() for d in damage), strict=True))
    report(frames=1_000_000, streams=1_000_000, accepted=accepted, rejected=rejected, foreign=foreign)
    assert foreign == 0
    assert min(accepted, rejected) > 500_000


def noise(megabytes: int, seed: int) -> Decoder:
    rng, decoder = np.random.default_rng(seed), Decoder()
    for _ in range(megabytes):
        assert decoder.feed(rng.bytes(1_000_000)) == []
    return decoder


def test_noise_holds_no_frame() -> None:
    decoder = noise(5, 1)
    assert decoder.ok == 0
    assert decoder.bad_crc > 50  # pieces that nothing but the checksum kept out
    assert decoder.bad_cobs + decoder.too_long + decoder.runt > 10_000


@pytest.mark.prove
@pytest.mark.timeout(3600)
def test_400_megabytes_of_noise_hold_no_frame() -> None:
    decoder = noise(400, 2)
    report(
        megabytes=400,
        accepted=decoder.ok,
        bad_crc=decoder.bad_crc,
        bad_cobs=decoder.bad_cobs,
        too_long=decoder.too_long,
        runt=decoder.runt,
        expected=decoder.bad_crc / 2**32,
    )
    assert decoder.ok == 0


# ---- long lives ----------------------------------------------------------------------------------------------


def life(periods: int, seed: int) -> dict[str, int]:
    done = soak(periods, seed)
    return {**done.witness.count, **done.events, **done.to_board.damage, "boots": done.boots}


@pytest.mark.prove
@pytest.mark.timeout(3 * 3600)
def test_a_million_frames_over_a_bad_line_in_virtual_time() -> None:
    runs, total = 20, dict[str, int]()
    with ProcessPoolExecutor(CORES) as pool:
        for counts in pool.map(life, [30_000] * runs, range(300, 300 + runs)):
            for name, count in counts.items():
                total[name] = total.get(name, 0) + count
    report(**total)
    assert total["host frames"] + total["board frames"] > 1_000_000
    assert min(total[k] for k in ("sessions", "latched", "misses", "exact", "bursts", "cuts", "brown-out")) > 10


TTL_MS = 400  # more than a busy machine keeps two threads waiting, less than a cable cut lasts
WIDE = Limits((ChannelLimits(-1_000_000, 1_000_000, 4000, 100),) * 2, 2000, 3, TTL_MS, 2000)


def drive(link: Link, until: float, random_: random.Random) -> None:
    """A host that clears and arms whenever it must, and otherwise streams a slow wave."""
    wave, count = np.zeros(2, np.int32), 0
    while time.monotonic() < until:
        try:
            if link.session == 0:
                state = link.latest
                if state is not None and state.state in (NodeState.FAILSAFE, NodeState.ESTOP):
                    link.clear()
                if link.hello.limits_hash == 0:
                    link.upload_limits(WIDE)
                link.arm()
            state = link.wait_state(count, 0.05)
            if state is None:
                continue
            count = state.count
            t = state.t_us * 1e-6
            wave[:] = 20_000 * np.sin(1.5 * t), 20_000 * np.cos(t)
            link.command(wave, state.t_us, TTL_MS)
            if random_.random() < 0.0003:
                random_.choice([link.estop, link.disarm])()
            if link.estop_pending:
                link.heartbeat()
        except LinkError:
            with suppress(LinkError):
                link.heartbeat()
            time.sleep(0.01)


def over_a_bad_cable(directory: Path, seconds: float) -> dict[str, int]:
    witness, lines = Witness(WIDE), (BadLine(1), BadLine(2))
    schema = Schema.positions(("shoulder", "elbow"), scale=2.0**-21)
    with PosixBoard(schema) as board, Tap(board.port, directory) as tap:
        with Link(tap.port) as link:  # the first handshake on a good line

            def to_board(data: bytes) -> bytes:
                witness.host_sends(data)
                return lines[0](data)

            def to_host(data: bytes) -> bytes:
                witness.board_sends(data)
                return lines[1](data)

            tap.to_board, tap.to_host = to_board, to_host
            drive(link, time.monotonic() + seconds, random.Random(3))
            tap.to_board = tap.to_host = bytes
            assert link.wait_state(link.latest.count if link.latest else 0, 5.0) is not None
            counters = link.counters
        assert witness.wrong == []
        assert witness.count["states"] - counters["states_rx"] <= counters["lost_states"]
    damage = {what: lines[0].damage[what] + lines[1].damage[what] for what in lines[0].damage}
    return {**counters, **witness.count, **damage}


def test_a_bad_cable_for_two_seconds(tmp_path: Path) -> None:
    counts = over_a_bad_cable(tmp_path, 2.0)
    assert counts["sessions"] >= 1
    assert counts["applied"] > 5


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_a_bad_cable_for_three_minutes(tmp_path: Path) -> None:
    counts = over_a_bad_cable(tmp_path, 180.0)
    report(**counts)
    assert counts["host frames"] + counts["board frames"] > 50_000
    assert min(counts["bad_crc"], counts["bad_cobs"], counts["lost_states"], counts["misses"]) > 100
    assert min(counts["cuts"], counts["bursts"], counts["latched"], counts["sessions"]) > 3
