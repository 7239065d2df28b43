"""The package's tests, on the double of rclpy beside this file or, with ``--rclpy=real``, on the one installed.

The double is on ``sys.path``, and its modules in ``sys.modules``, only while tests of this folder are collected or run:
names like ``sensor_msgs`` mean nothing to the other tests of a session.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parent
DOUBLE = HERE / "rclpy_double"
BESIDE = [HERE.parent, HERE / "contract"]
"""The package under test, and the modules that its tests share."""
ROOTS = {path.name for path in DOUBLE.iterdir() if (path / "__init__.py").exists()}
"""What only the double may bring."""
OURS = ROOTS | {"kizzasi_ros"} | {path.stem for path in BESIDE[1].glob("*.py")}

_modules: dict[str, ModuleType] = {}
_domains = itertools.count(os.getpid())


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("kizzasi_ros")
    group.addoption(
        "--rclpy", choices=("double", "real"), default="double", help="which rclpy the package is tested on"
    )
    group.addoption("--ros-distro", default=None, help="the ROS distribution that the double behaves as")


def _real(config: pytest.Config) -> bool:
    return config.getoption("--rclpy", "double") == "real"


@contextmanager
def _on_path(config: pytest.Config) -> Iterator[None]:
    """The modules of this folder's tests are there; afterwards the session is as it was."""
    real = _real(config)
    distro, before = config.getoption("--ros-distro", None), os.environ.get("ROS_DISTRO")
    foreign = sorted(name for name in ROOTS if name in sys.modules)
    if foreign and not real:
        pytest.exit(f"--rclpy=double: {', '.join(foreign)} already imported from elsewhere", returncode=4)
    if distro is not None:
        os.environ["ROS_DISTRO"] = distro
    paths = [str(path) for path in (BESIDE if real else (DOUBLE, *BESIDE))]
    sys.path[:0] = paths
    sys.modules.update(_modules)
    try:
        yield
    finally:
        for path in paths:
            sys.path.remove(path)
        for name in [name for name in sys.modules if not real and name.partition(".")[0] in OURS]:
            _modules[name] = sys.modules.pop(name)
        if distro is not None:
            os.environ.pop("ROS_DISTRO")
            if before is not None:
                os.environ["ROS_DISTRO"] = before


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    with _on_path(collector.config) if _here(collector) and isinstance(collector, pytest.Module) else nullcontext():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    with _on_path(item.config) if _here(item) else nullcontext():
        return (yield)


def _here(node: pytest.Item | pytest.Collector) -> bool:
    """pytest calls these for the tests of other folders as well."""
    return node.path.is_relative_to(HERE)


class _NoRclpy(pytest.Module):
    def collect(self) -> list[Any]:
        pytest.skip("--rclpy=real: no rclpy can be imported; source a ROS 2 installation", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    wanted = _real(parent.config) and module_path.is_relative_to(HERE / "contract")
    if wanted and importlib.util.find_spec("rclpy") is None:
        return _NoRclpy.from_parent(parent, path=module_path)
    return None


@pytest.fixture
def ros() -> Iterator[Any]:
    """rclpy, initialised for one test in a domain of its own."""
    import rclpy

    rclpy.init(args=[], domain_id=1 + next(_domains) % 100)
    yield rclpy
    rclpy.try_shutdown()


Spinning = Callable[..., AbstractContextManager[Any]]


@pytest.fixture
def spinning() -> Spinning:
    """``with spinning(node, …) as executor:`` runs the nodes' callbacks on another thread, by ``executor=`` or a
    MultiThreadedExecutor of four. What a callback raises comes out at the end."""

    @contextmanager
    def spin(*nodes: Any, executor: Any = None) -> Iterator[Any]:
        from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor

        chosen = executor or MultiThreadedExecutor(num_threads=4)
        for node in nodes:
            chosen.add_node(node)
        raised: list[BaseException] = []

        def run() -> None:
            try:
                chosen.spin()
            except ExternalShutdownException:
                pass
            except Exception as exc:
                raised.append(exc)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield chosen
        finally:
            chosen.shutdown()
            thread.join(10)
        assert not thread.is_alive(), "the executor did not end"
        if raised:
            raise raised[0]

    return spin


@pytest.fixture
def until() -> Callable[..., None]:
    """``until(lambda: …)`` waits for that; fails after ``timeout_s``."""

    def wait(condition: Callable[[], Any], timeout_s: float = 10.0) -> None:
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, "it did not come about"
            time.sleep(0.005)

    return wait
