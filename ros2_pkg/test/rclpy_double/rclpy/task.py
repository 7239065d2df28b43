"""Results that come later, and the work that makes them."""

from __future__ import annotations

import inspect
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Generator
from typing import Any


class Future:
    """Done callbacks run on its executor, or at once where it has none."""

    def __init__(self, *, executor: Any = None) -> None:
        self._done = False
        self._cancelled = False
        self._result: Any = None
        self._exception: BaseException | None = None
        self._exception_fetched = False
        self._callbacks: list[Callable[[Future], Any]] = []
        self._lock = threading.Lock()
        self._set_executor(executor)

    def __del__(self) -> None:
        if self._exception is not None and not self._exception_fetched:
            sys.stderr.write(f"The following exception was never retrieved: {self._exception}\n")

    def __await__(self) -> Generator[Future, None, Any]:
        while not (self._done or self._cancelled):
            yield self
        return self.result()

    def cancel(self) -> None:
        with self._lock:
            if not self._done:
                self._cancelled = True
        self._call_back()

    def cancelled(self) -> bool:
        return self._cancelled

    def done(self) -> bool:
        return self._done

    def result(self) -> Any:
        """None where nothing was set yet. Raises what was set as the exception."""
        if exception := self.exception():
            raise exception
        return self._result

    def exception(self) -> BaseException | None:
        self._exception_fetched = True
        return self._exception

    def set_result(self, result: Any) -> None:
        with self._lock:
            self._result = result
            self._done, self._cancelled = True, False
        self._call_back()

    def set_exception(self, exception: BaseException) -> None:
        with self._lock:
            self._exception, self._exception_fetched = exception, False
            self._done, self._cancelled = True, False
        self._call_back()

    def add_done_callback(self, callback: Callable[[Future], Any]) -> None:
        with self._lock:
            if not self._done:
                self._callbacks.append(callback)
                return
            executor = self._executor()
        if executor is None:
            callback(self)
        else:
            executor.create_task(callback, self)

    def remove_done_callback(self, callback: Callable[[Future], Any]) -> bool:
        with self._lock:
            try:
                self._callbacks.remove(callback)
            except ValueError:
                return False
            return True

    def _set_executor(self, executor: Any) -> None:
        self._executor: Callable[[], Any] = (lambda: None) if executor is None else weakref.ref(executor)

    def _call_back(self) -> None:
        with self._lock:
            executor, callbacks = self._executor(), self._callbacks
            self._callbacks = []
        for callback in callbacks:
            if executor is not None:
                executor.create_task(callback, self)
                continue
            try:
                callback(self)
            except Exception as exc:
                warnings.warn(f"Unhandled exception in done callback: {exc}", stacklevel=1)


class Task(Future):
    """A function, or a coroutine that goes on when what it awaits is done. Calling it runs it, or one step of it."""

    def __init__(
        self, handler: Callable[..., Any], args: Any = None, kwargs: dict[str, Any] | None = None, executor: Any = None
    ) -> None:
        super().__init__(executor=executor)
        self._handler: Any = lambda: handler(*(args or ()), **(kwargs or {}))
        self._coroutine = self._handler() if inspect.iscoroutinefunction(handler) else None
        self._executing = False
        self._task_lock = threading.Lock()

    def executing(self) -> bool:
        return self._executing

    def __call__(self) -> None:
        with self._task_lock:  # what it awaited may be done, and another thread here, before the step has ended
            if self._done:
                return
            self._executing = True
            try:
                self._step()
            except Exception as exc:
                self.set_exception(exc)
            finally:
                self._executing = False

    def _step(self) -> None:
        if self._coroutine is None:
            self.set_result(self._handler())
            return
        try:
            awaited = self._coroutine.send(None)
        except StopIteration as stop:
            self.set_result(stop.value)
            return
        if isinstance(awaited, Future):
            awaited.add_done_callback(self._resume)
        else:
            self._resume(None)

    def _resume(self, _: Any) -> None:
        if (executor := self._executor()) is not None:
            executor._call_task_in_next_spin(self)
