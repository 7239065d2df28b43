"""Mutants of the guard's Python modules, by mutmut 3: which of them do the tests notice? See README.md.

    python tests/mutation/python_mutants.py faults sensors        (or: all)

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
TESTS = {
    "faults": ["tests/edge/test_faults.py", "tests/prove/test_prove_faults.py"],
    "sensors": ["tests/edge/test_sensors.py"],
    "lattice": ["tests/edge/test_lattice.py"],
    "coupled_spec": ["tests/edge/test_coupled_spec.py"],
    "bounds": SOURCES,
    "limits": SOURCES,
    "files": SOURCES,
    "urdf": ["tests/edge/test_urdf.py", *SOURCES],
    "mjcf": ["tests/edge/test_mjcf.py", *SOURCES],
    "joint_limits": ["tests/edge/test_joint_limits_yaml.py", *SOURCES],
}
SLOW = "not all_branches and not fuzzed and not generated"
"""Left out: tests that run a second pytest, and those that only look for what no one thought of."""

PYTEST = """[tool.pytest.ini_options]
pythonpath = ["tests/edge", "firmware_bridge"]
addopts = "-q --strict-markers --import-mode=importlib -p no:cacheprovider -m 'not prove'"
markers = ["prove: long proofs"]
"""


def configuration(module: str) -> str:
    def several(key: str, values: list[str]) -> str:
        return f"{key}=\n" + "".join(f"  {value}\n" for value in values)

    return (
        "[mutmut]\nsource_paths=kizzasi_edge\nuse_git_change_detection=false\ntrack_dependencies=false\n"
        "timeout_constant=10\n"
        + several("only_mutate", [f"kizzasi_edge/guardrails/{module}.py", ""])
        + several("also_copy", ["firmware_bridge", "docs", "examples"])
        + several("pytest_add_cli_args", ["-k", SLOW])
        + several("pytest_add_cli_args_test_selection", [*TESTS[module], ""])
    )


def run(module: str, folder: Path) -> dict[str, object]:
    for part in COPIED:
        shutil.copytree(ROOT / part, folder / part)
    (folder / "pyproject.toml").write_text(PYTEST)
    (folder / "setup.cfg").write_text(configuration(module))

    def mutmut(*arguments: str) -> str:
        command = [sys.executable, "-m", "mutmut", *arguments]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout

    log = mutmut("run", "--max-children", "1")
    found = re.findall(r"^ *(\S+): ([\w ]+)$", mutmut("results", "--all", "true"), flags=re.M)
    if not found:
        raise SystemExit(f"{module}: mutmut did not come to results:\n{log[-3000:]}")
    counts = Counter(how for _, how in found)
    for name, how in found:
        if how not in ("killed", "timeout"):
            lines = [line for line in mutmut("show", name).splitlines() if re.match(r"[-+](?![-+])", line)]
            sys.stdout.write(f"{name}: {how}\n" + "".join(f"    {line}\n" for line in lines))
    killed = counts["killed"] + counts["timeout"]
    return {"module": module, **counts, "mutants": len(found), "score": round(killed / len(found), 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="+", choices=[*TESTS, "all"])
    options = parser.parse_args()
    for module in TESTS if "all" in options.modules else options.modules:
        with tempfile.TemporaryDirectory() as folder:
            sys.stdout.write(json.dumps(run(module, Path(folder))) + "\n")


if __name__ == "__main__":
    main()
