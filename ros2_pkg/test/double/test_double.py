"""The double keeps to itself, and passes the contract suite as each distribution of ROS."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CONTRACT = Path(__file__).parents[1] / "contract" / "test_rclpy_itself.py"
ROOT = Path(__file__).parents[3]
AMONG = """import sys
def test_nothing_of_the_double_is_here():
    assert not {"rclpy", "std_msgs", "sensor_msgs", "rosidl_double"} & {name.partition(".")[0] for name in sys.modules}
    assert not [path for path in sys.path if "rclpy_double" in path]
"""
FOREIGN = "import sys, types\nsys.modules['std_msgs'] = types.ModuleType('std_msgs')\n"


@pytest.fixture(autouse=True)
def _only_on_the_double(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--rclpy", "double") == "real":
        pytest.skip("--rclpy=real: about the double")


def session(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)


def test_other_tests_of_a_session_do_not_meet_it(tmp_path: Path) -> None:
    before, after = tmp_path / "test_before.py", tmp_path / "test_after.py"
    for file in (before, after):
        file.write_text(AMONG)
    done = session(str(before), str(CONTRACT), str(after), "-k", "nothing_of_the_double or atomically")
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


def test_it_does_not_mix_with_modules_of_another(tmp_path: Path) -> None:
    (tmp_path / "test_foreign.py").write_text(FOREIGN)
    done = session(str(tmp_path / "test_foreign.py"), str(CONTRACT))
    assert done.returncode == 4
    assert "std_msgs already imported from elsewhere" in done.stdout


@pytest.mark.prove
@pytest.mark.parametrize("distro", ["humble", "iron", "jazzy", "kilted", "lyrical", "rolling"])
def test_it_is_rclpy_as_each_distribution_has_it(distro: str) -> None:
    done = session(str(CONTRACT), f"--ros-distro={distro}")
    assert done.returncode == 0, done.stdout
