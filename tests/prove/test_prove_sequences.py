"""A million lives of a node on the Cortex-M3's object code, and what they would find: tests/firmware/lives.py."""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("unicorn")

from lives import MUTANTS, Core, Lived, Native, compile_core, compile_native

LIVES = {"an385": 1_000_000, "an386": 100_000}
SOME = 5_000  # lives in one run of a core


def same(core: Core, native: Native, first: int) -> Lived:
    """``SOME`` lives on both; the core's."""
    lived, here = core.live(first, SOME), native.live(first, SOME)
    assert lived == here, (lived.violated, lived.life, here.violated, here.life)
    return lived


@pytest.mark.prove
@pytest.mark.timeout(6 * 3600)
@pytest.mark.parametrize("name", LIVES)
def test_a_million_lives(tmp_path: Path, name: str) -> None:
    core, native, began = compile_core(tmp_path, name), compile_native(tmp_path), time.monotonic()
    total: tuple[int, ...] = ()
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        runs = range(0, LIVES[name], SOME)
        for lived in pool.map(same, [core] * len(runs), [native] * len(runs), runs):
            assert not lived.violated, lived
            total = tuple(map(sum, zip(total, lived.counts, strict=True))) if total else lived.counts
    figures = {"core": name, "lives": LIVES[name], "seconds": round(time.monotonic() - began), **native.tables(total)}
    sys.stdout.write(f"\n{json.dumps(figures)}\n")


@pytest.mark.prove
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_careless_node_is_caught_on_the_core(tmp_path: Path, mutant: str) -> None:
    """In the same life and for the same reason as here."""
    here = compile_native(tmp_path, mutant).live(0, 200_000)
    assert here.violated, f"{mutant}: not caught"
    assert compile_core(tmp_path, "an385", mutant).live(here.life, 1) == here
    sys.stdout.write(f"\n{json.dumps({'mutant': mutant, 'life': here.life, 'violated': here.violated})}\n")
