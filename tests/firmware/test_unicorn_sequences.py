"""Lives of a node among careless people, on the cores that the firmware is for. The long form: tests/prove."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("unicorn")

from lives import CORES, Native, compile_core, compile_native

SHORT = 300
WAYS = {
    *("INIT-READY", "INIT-ESTOP"),
    *("READY-INIT", "READY-ARMED", "READY-FAILSAFE", "READY-ESTOP"),
    *("ARMED-INIT", "ARMED-READY", "ARMED-FAILSAFE", "ARMED-ESTOP"),
    *("FAILSAFE-INIT", "FAILSAFE-READY", "FAILSAFE-ESTOP"),
    *("ESTOP-INIT", "ESTOP-READY"),
}
ANSWERS = {
    "LIMITS": {"OK", "WRONG_STATE", "BAD_LIMITS", "BAD_LENGTH"},
    "LIMITS_COMMIT": {"OK", "WRONG_STATE", "BAD_LIMITS", "HASH_MISMATCH", "BAD_LENGTH"},
    "ARM": {
        *("OK", "WRONG_STATE", "WRONG_NONCE", "WRONG_LIMITS_HASH"),
        *("NO_MEASUREMENT", "BAD_LENGTH", "NOT_AT_REST"),
    },
    "DISARM": {"OK", "BAD_LENGTH"},
    "CLEAR": {"OK", "WRONG_STATE", "WRONG_NONCE", "NO_MEASUREMENT", "BAD_LENGTH", "NOT_AT_REST", "ESTOP_INPUT"},
}


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Native:
    return compile_native(tmp_path_factory.mktemp("native"))


def test_the_lives_hold_what_they_should(native: Native) -> None:
    """Else nothing would be proved by them."""
    lived = native.live(0, 10_000)
    assert not lived.violated, lived
    tables = native.tables(lived.counts)
    assert {way for way, n in tables["ways"].items() if n} == WAYS
    found = {(request, result) for request, results in ANSWERS.items() for result in results}
    assert {tuple(name.split()) for name, n in tables["answers"].items() if n} == found
    for table in ("happened", "faults", "lost_estops", "odd_commands", "facts"):
        assert min(tables[table].values()) > 20, (table, tables[table])
    for table in ("replayed", "late", "outdated"):
        for kind in ("ARM", "CLEAR", "COMMAND", "LIMITS"):
            assert tables[table][kind] > 100, (table, tables[table])


@pytest.mark.parametrize("name", CORES)
def test_the_same_lives(tmp_path: Path, native: Native, name: str) -> None:
    lived = compile_core(tmp_path, name).live(0, SHORT)
    assert not lived.violated, lived
    assert lived == native.live(0, SHORT)


def test_a_careless_node_is_caught(tmp_path: Path) -> None:
    """The other ones are planted in tests/prove."""
    lived = compile_core(tmp_path, "an385", "COMMAND of any session").live(0, 50)
    assert "ignored" in lived.violated, lived
