"""`colcon build --base-paths ros2_pkg`, judged by what it installs: of a bad package.xml colcon itself only warns."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

catkin_pkg = pytest.importorskip("catkin_pkg.package", reason="catkin_pkg is not installed")
pytest.importorskip("colcon_ros", reason="colcon-ros is not installed")

PACKAGE = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
DOUBLE = PACKAGE / "test" / "rclpy_double"


def build(package: Path, scratch: Path) -> tuple[Path, str]:
    """Where colcon has installed it, or would have; and what it warned of."""
    command = ["colcon", "--log-base", str(scratch / "log"), "build", "--base-paths", str(package)]
    bases = ["--build-base", str(scratch / "build"), "--install-base", str(scratch / "install")]
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])
    environ = {**os.environ, "PATH": path, "COLCON_HOME": str(scratch)}
    done = subprocess.run([*command, *bases], env=environ, cwd=scratch, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return scratch / "install", "".join(line for line in done.stderr.splitlines() if "WARNING" in line)


def files(folder: Path) -> dict[str, bytes]:
    found = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def in_its_environment(install: Path, command: str, *, ok: bool = True) -> str:
    """What it says once the workspace is sourced."""
    environ = {"PATH": os.pathsep.join([str(BIN), "/usr/bin", "/bin"]), "PYTHONPATH": str(DOUBLE)}
    script = f'. "{install}/local_setup.sh" && exec {command}'
    done = subprocess.run(["sh", "-c", script], env=environ, capture_output=True, text=True, timeout=60)
    assert (done.returncode == 0) == ok, done.stderr
    return (done.stdout if ok else done.stderr).strip()


def check_installed(install: Path) -> None:
    """All that ROS looks for of a package: by its index, its folders, its programs and its environment."""
    prefix = install / "kizzasi_ros"
    share = prefix / "share" / "kizzasi_ros"
    assert (prefix / "share/ament_index/resource_index/packages/kizzasi_ros").is_file()
    assert catkin_pkg.parse_package(str(share)).name == "kizzasi_ros"
    assert (share / "package.xml").read_bytes() == (PACKAGE / "package.xml").read_bytes()
    for folder in ("launch", "config"):
        assert files(share / folder) == files(PACKAGE / folder) != {}
    program = prefix / "lib" / "kizzasi_ros" / "policy_node"
    assert os.access(program, os.X_OK)
    assert program.read_text().splitlines()[0] == "#!/usr/bin/env python3"
    assert {"ament_prefix_path.sh", "pythonpath.sh"} <= {path.name for path in (share / "hook").iterdir()}
    code = "import os, kizzasi_ros; print(os.environ['AMENT_PREFIX_PATH'], kizzasi_ros.__file__)"
    ament, module = in_its_environment(install, f'python3 -c "{code}"').split()
    assert Path(ament) == prefix
    assert Path(module).is_relative_to(prefix)
    assert files(Path(module).parent) == files(PACKAGE / "kizzasi_ros")


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory) -> Path:
    installed, warned = build(PACKAGE, tmp_path_factory.mktemp("workspace"))
    assert warned == ""  # it mends what setup.py forgets, for now
    return installed


def test_it_installs_all_that_ros_looks_for(install: Path) -> None:
    check_installed(install)


def test_its_program_runs(install: Path) -> None:
    """As far as its first parameter, which is none."""
    program = install / "kizzasi_ros" / "lib" / "kizzasi_ros" / "policy_node"
    refused = in_its_environment(install, f"{program} --ros-args -p start_s:=nonsense", ok=False)
    assert "start_s" in refused.splitlines()[-1]
    assert "policy_node.py" in refused


BREAK: dict[str, Callable[[str], str]] = {
    "not XML": lambda text: text.replace("</package>", ""),
    "no maintainer": lambda text: text.replace("<maintainer", "<!-- <maintainer").replace("</maintainer>", " -->"),
    "a name that is none": lambda text: text.replace("<name>kizzasi_ros</name>", "<name>Kizzasi ROS</name>"),
    "another build type": lambda text: text.replace("<build_type>ament_python<", "<build_type>ament_nothing<"),
}


@pytest.mark.parametrize("how", BREAK)
def test_a_broken_package_xml_is_noticed(how: str, tmp_path: Path) -> None:
    package = tmp_path / "ros2_pkg"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("test", "__pycache__"))
    text = (package / "package.xml").read_text()
    (package / "package.xml").write_text(BREAK[how](text))
    assert (package / "package.xml").read_text() != text
    installed, _ = build(package, tmp_path)
    with pytest.raises((AssertionError, catkin_pkg.InvalidPackage, OSError)):
        check_installed(installed)
