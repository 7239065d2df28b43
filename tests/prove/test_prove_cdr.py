"""A million damaged messages: read or refused, the quick way like the slow one."""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor

import pytest
from hostile_cdr import fuzz

MUTATIONS = int(os.environ.get("KIZZASI_CDR_MUTATIONS", "1000000"))
SHARE = 10_000


@pytest.mark.prove
@pytest.mark.timeout(3600)
def test_damaged_messages() -> None:
    shares = range(1000, 1000 + max(MUTATIONS // SHARE, 1))
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = list(pool.map(fuzz, shares, [SHARE] * len(shares)))
    total = {key: sum(each[key] for each in found) for key in found[0]}
    sys.stdout.write(f"\n{json.dumps({'mutations': SHARE * len(shares), **total})}\n")
    assert sum(total.values()) == SHARE * len(shares)
