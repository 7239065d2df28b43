"""Mutants of the guard's Python modules, by mutmut 3: which of them do the tests notice? See README.md.

    python tests/mutation/python_mutants.py faults sensors [--only '*7']        (or: all)

mutmut works in the current folder and wants its configuration there. So each module gets a private copy of the tree
with a configuration of its own: the module, the tests that are about it. Prints each survivor as a diff, then one JSON
line a module.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = ("kizzasi_edge", "firmware_bridge", "docs", "examples", "tests/edge", "tests/prove")
SOURCES = ["tests/edge/test_limit_sources.py", "tests/edge/test_guard_files.py"]
WIRED = [
    f"tests/edge/test_{name}.py"
    for name in ("guardrails", "guard_faults", "velocity_commands", "guard_review", "temporal_guard")
]
TESTS = {
    "faults": ["tests/edge/test_faults.py", "tests/prove/test_prove_faults.py"],
    "sensors": ["tests/edge/test_sensors.py"],
    "lattice": ["tests/edge/test_lattice.py"],
    "coupled_spec": ["tests/edge/test_coupled_spec.py"],
    "bounds": SOURCES,
    "limits": ["tests/edge/test_mjcf.py", *SOURCES],
    "files": ["tests/edge/test_files.py", *SOURCES],
    "urdf": ["tests/edge/test_urdf.py", *SOURCES],
    "mjcf": ["tests/edge/test_mjcf.py", *SOURCES],
    "joint_limits": ["tests/edge/test_joint_limits_yaml.py", *SOURCES],
    "verdict": ["tests/edge/test_verdict.py"],
    "watch": ["tests/edge/test_watch.py"],
    "motion": ["tests/edge/test_motion.py", "tests/edge/test_velocity_commands.py"],
    "inputs": ["tests/edge/test_stack.py", "tests/edge/test_guardrails.py", "tests/edge/test_guard_review.py"],
    "senses": ["tests/edge/test_stack.py", *WIRED],
    "stack": ["tests/edge/test_stack.py", *WIRED],
}
SLOW = "not all_branches and not fuzzed"
"""Left out: tests that run a second pytest, and those that only look for what no one thought of."""

PYTEST = """[tool.pytest.ini_options]
pythonpath = ["tests/edge", "firmware_bridge"]
addopts = "-q --strict-markers --import-mode=importlib -p no:cacheprovider -m 'not prove'"
markers = ["prove: long proofs"]
"""

FEW = """import hypothesis

def pytest_collection_modifyitems(items):
    for item in items:
        test = getattr(item, "obj", None)
        if (old := getattr(test, "_hypothesis_internal_use_settings", None)) is not None:
            test._hypothesis_internal_use_settings = hypothesis.settings(
                old, max_examples=min(old.max_examples, {most}), derandomize=True, database=None, deadline=None,
                phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
            )
"""
"""The same examples for every mutant, and nothing is made smaller once it has failed."""
MOST = {"mjcf": 60, "limits": 1, "motion": 10, "inputs": 3, "senses": 3, "stack": 3}
"""Examples of a property, where one takes long."""
SHOW = "import sys; from mutmut.__main__ import show\nfor name in sys.argv[1:]: show.callback(name)"


def configuration(module: str) -> str:
    def several(key: str, values: list[str]) -> str:
        return f"{key}=\n" + "".join(f"  {value}\n" for value in values)

    return (
        "[mutmut]\nsource_paths=kizzasi_edge\nuse_git_change_detection=false\ntrack_dependencies=false\n"
        "timeout_constant=0.5\ntimeout_multiplier=10\n"
        + several("only_mutate", [f"kizzasi_edge/guardrails/{module}.py", ""])
        + several("also_copy", ["firmware_bridge", "docs", "examples", "conftest.py"])
        + several("pytest_add_cli_args", ["-k", SLOW])
        + several("pytest_add_cli_args_test_selection", [*TESTS[module], ""])
    )


def run(module: str, folder: Path, only: list[str]) -> dict[str, object]:
    for part in COPIED:
        shutil.copytree(ROOT / part, folder / part)
    (folder / "pyproject.toml").write_text(PYTEST)
    (folder / "setup.cfg").write_text(configuration(module))
    (folder / "conftest.py").write_text(FEW.format(most=MOST.get(module, 1000)))

    def python(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout

    log = python("-m", "mutmut", "run", "--max-children", "1", *only)
    found = re.findall(r"^ *(\S+): ([\w ]+)$", python("-m", "mutmut", "results", "--all", "true"), flags=re.M)
    found = [(name, how) for name, how in found if how != "not checked"]
    if not found:
        raise SystemExit(f"{module}: mutmut did not come to results:\n{log[-3000:]}")
    counts = Counter(how for _, how in found)
    alive = [name for name, how in found if how not in ("killed", "timeout")]
    for line in python("-c", SHOW, *alive).splitlines():
        if line.startswith("# "):
            sys.stdout.write(f"{line[2:]}\n")
        elif re.match(r"[-+](?![-+])", line):
            sys.stdout.write(f"    {line}\n")
    killed = counts["killed"] + counts["timeout"]
    return {"module": module, **counts, "mutants": len(found), "score": round(killed / len(found), 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="+", choices=[*TESTS, "all"])
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="only these mutants; patterns are names too"
    )
    options = parser.parse_args()
    for module in TESTS if "all" in options.modules else options.modules:
        with tempfile.TemporaryDirectory() as folder:
            sys.stdout.write(json.dumps(run(module, Path(folder), options.only)) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
