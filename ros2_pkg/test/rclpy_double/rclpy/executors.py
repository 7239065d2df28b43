"""Executors: which callback runs next, and on which thread."""

from __future__ import annotations

import inspect
import os
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rosidl_double.distro import since

from rclpy.task import Future, Task
from rclpy.utilities import get_default_context


class TimeoutException(Exception):
    """Nothing became ready in time."""


class ShutdownException(Exception):
    """The executor was shut down."""


class ExternalShutdownException(Exception):
    """The context was shut down while the executor waited."""


class ConditionReachedException(Exception):
    """What was waited for is done."""


async def await_or_execute(callback: Callable[..., Any], *args: Any) -> Any:
    found = callback(*args)
    return await found if inspect.iscoroutine(found) else found


class Executor:
    """What all executors share: the nodes, and the wait for one of their callbacks."""

    def __init__(self, *, context: Any = None) -> None:
        self._context = context or get_default_context()
        self._nodes: list[Any] = []
        self._batch: deque[Any] = deque()
        self._tasks: deque[Task] = deque()
        self._condition = threading.Condition()
        self._woken = self._is_shutdown = False
        self._spinning = threading.Lock()
        self._context.on_shutdown(self.wake)

    @property
    def context(self) -> Any:
        return self._context

    def wake(self) -> None:
        with self._condition:
            self._woken = True
            self._condition.notify_all()

    def create_task(self, callback: Callable[..., Any], *args: Any, **kwargs: Any) -> Task:
        task = Task(callback, args, kwargs, executor=self)
        self._call_task_in_next_spin(task)
        return task

    def _call_task_in_next_spin(self, task: Task) -> None:
        self._tasks.append(task)
        self.wake()

    def create_future(self) -> Future:
        return Future(executor=self)

    def add_node(self, node: Any) -> bool:
        if node in self._nodes:
            return False
        self._nodes.append(node)
        node.executor = self
        self.wake()
        return True

    def remove_node(self, node: Any) -> None:
        if node in self._nodes:
            self._nodes.remove(node)
            self.wake()

    def get_nodes(self) -> list[Any]:
        return list(self._nodes)

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """No callback begins from now on."""
        self._is_shutdown = True
        self.wake()
        self._nodes = []
        return True

    def spin(self) -> None:
        """Until the executor's or the context's shutdown. Raises what a callback raised; ExternalShutdownException
        where the context's shutdown is met waiting."""
        while self._context.ok() and not self._is_shutdown:
            self.spin_once()

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Wait for one callback, and run it. ``timeout_sec`` None or negative: for ever."""
        self._spin_once(timeout_sec, lambda: False)

    def spin_until_future_complete(self, future: Future, timeout_sec: float | None = None) -> None:
        future.add_done_callback(lambda _: self.wake())
        end = None if timeout_sec is None or timeout_sec < 0 else time.monotonic() + timeout_sec
        left = timeout_sec
        while self._context.ok() and not self._is_shutdown and not (future.done() or future.cancelled()):
            self._spin_once(left, lambda: future.done() or future.cancelled())
            if end is not None:
                left = end - time.monotonic()
                if left <= 0:
                    return

    def spin_once_until_future_complete(self, future: Future, timeout_sec: float | None = None) -> None:
        future.add_done_callback(lambda _: self.wake())
        self._spin_once(timeout_sec, future.done)

    def _spin_once(self, timeout_sec: float | None, condition: Callable[[], bool]) -> None:
        if not self._spinning.acquire(blocking=False):
            raise (
                RuntimeError("Executor is already spinning")
                if since("jazzy")
                else ValueError("generator already executing")
            )
        try:
            task = self._wait(timeout_sec, condition)
        except (ShutdownException, TimeoutException, ConditionReachedException):
            return
        finally:
            self._spinning.release()
        self._run(task)

    def _run(self, task: Task) -> None:
        raise NotImplementedError

    def _wait(self, timeout_sec: float | None, condition: Callable[[], bool]) -> Task:
        end = None if timeout_sec is None or timeout_sec < 0 else time.monotonic() + timeout_sec
        while True:
            if self._is_shutdown:
                raise ShutdownException
            if condition():
                raise ConditionReachedException
            if not self._context.ok():
                raise ExternalShutdownException
            with self._condition:
                self._woken = False
            if (task := self._next()) is not None:
                return task
            now = time.monotonic()
            if end is not None and now >= end:
                raise TimeoutException
            times = [due / 1e9 for node in self.get_nodes() for each in node._entities() if (due := self._due(each))]
            wait = min([*times, *([] if end is None else [end])], default=None)
            with self._condition:
                if not self._woken:
                    self._condition.wait(None if wait is None else max(0.0, wait - now))

    def _due(self, entity: Any) -> int | None:
        return entity._due_ns() if self.can_execute(entity) else None

    def can_execute(self, entity: Any) -> bool:
        return not entity._executor_event and entity.callback_group.can_execute(entity)

    def _next(self) -> Task | None:
        """Tasks first; then all that is ready, once each, before it is looked again what is."""
        try:
            return self._tasks.popleft()
        except IndexError:
            pass
        if not self._batch:
            self._batch.extend(each for node in self.get_nodes() for each in node._entities() if each._ready())
        while self._batch:
            entity = self._batch.popleft()
            if self.can_execute(entity) and entity._ready():
                entity._executor_event = True
                return Task(self._handle, (entity,), executor=self)
        return None

    async def _handle(self, entity: Any) -> None:
        if self._is_shutdown or not entity.callback_group.beginning_execution(entity):
            entity._executor_event = False
            self.wake()
            return
        try:
            try:
                callback = entity._take()
            finally:
                entity._executor_event = False
                self.wake()
            if callback is not None:
                await await_or_execute(callback)
        finally:
            entity.callback_group.ending_execution(entity)
            self.wake()

    if since("jazzy"):

        def __enter__(self) -> Executor:
            return self

        def __exit__(self, *exc: object) -> None:
            self.shutdown()


class SingleThreadedExecutor(Executor):
    """Callbacks run on the thread that spins."""

    def _run(self, task: Task) -> None:
        task()
        if task.done():
            task.result()


class MultiThreadedExecutor(Executor):
    """Callbacks run on ``num_threads`` threads (None: as many as there are cores). What one raises comes out of a later
    spin."""

    def __init__(self, num_threads: int | None = None, *, context: Any = None) -> None:
        super().__init__(context=context)
        if num_threads is None:
            num_threads = len(os.sched_getaffinity(0))
        if num_threads == 1:
            text = "MultiThreadedExecutor is used with a single thread.\nUse the SingleThreadedExecutor instead."
            warnings.warn(text, stacklevel=2)
        self._executor = ThreadPoolExecutor(num_threads)
        self._futures: list[Task] = []

    def _spin_once(self, timeout_sec: float | None, condition: Callable[[], bool]) -> None:
        try:
            super()._spin_once(timeout_sec, condition)
        except ExternalShutdownException:
            return

    def _run(self, task: Task) -> None:
        try:
            self._executor.submit(task)
        except RuntimeError:
            if not self._is_shutdown:
                raise
        self._futures.append(task)
        for future in list(self._futures):
            if future.done():
                self._futures.remove(future)
                future.result()

    def shutdown(self, timeout_sec: float | None = None, *, wait_for_threads: bool = True) -> bool:
        super().shutdown(timeout_sec)
        if since("jazzy"):
            self._executor.shutdown(wait=wait_for_threads)
        return True
