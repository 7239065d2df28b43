"""The onnxruntime engine: one thread, buffers bound once, two bindings swapped at each commit.

Settings and call path are the measured ones of DESIGN §3: at these model sizes the call costs as much as
the arithmetic. Binding A reads state buffer 0 and writes buffer 1, binding B the other way round (ping-pong):
a step never overwrites the state it started from, and a failed one is undone by not swapping. States that the
manifest marks `in_place` (ring caches) have one buffer, read and written by both bindings.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from kizzasi_edge.bundle import Bundle
from kizzasi_edge.engines.base import FloatArray, StateArray
from kizzasi_edge.errors import BundleError, ConfigError, ModelError, SnapshotError

__all__ = ["OrtEngine"]

_TENSOR_TYPES = {"float32": "tensor(float)", "int64": "tensor(int64)"}


class OrtEngine:
    """Steps a bundle with onnxruntime on the CPU (see Engine for x, y and the meaning of the methods).

    Args:
        bundle: the model file.
        batch: streams stepped at once; more than 1 needs a bundle exported with a symbolic batch.

    Raises:
        BundleError: onnxruntime is too old, cannot load the graph, or the graph's tensors disagree with the
            manifest (names tensor, found, expected).
        ConfigError: batch > 1 and the bundle's batch is fixed at 1.
    """

    name = "ort"
    x: FloatArray
    y: FloatArray
    head: dict[str, FloatArray]

    def __init__(self, bundle: Bundle, batch: int = 1) -> None:
        manifest = bundle.manifest
        if batch < 1 or (batch > 1 and manifest.batch != "B"):
            raise ConfigError(
                f"{bundle.path}: batch: found {batch}, expected "
                f"{'at least 1' if manifest.batch == 'B' else '1 (the bundle was exported without --batch)'}"
            )
        self._path = bundle.path
        self._batch = batch
        self._input_dim, self._output_dim = manifest.input_dim, manifest.output_dim
        self._states = {
            state.name: np.empty((batch, *state.shape[1:]), state.dtype) for state in manifest.states
        }  # shapes and dtypes
        self._in_place = {state.name for state in manifest.states if state.in_place}
        self._head = manifest.head_outputs
        self._session = _open_session(bundle)
        _check_tensors(bundle, self._session)
        self._init = self._read_init()
        self._allocate()

    def _read_init(self) -> dict[str, StateArray]:
        if not self._states:
            return {}
        feed: dict[str, StateArray] = {name: np.zeros_like(like) for name, like in self._states.items()}
        feed["x"] = np.zeros((self._batch, self._input_dim), np.float32)
        values = self._session.run([f"{name}_init" for name in self._states], feed)
        init = {}
        for (name, like), value in zip(self._states.items(), values, strict=True):
            if not np.isfinite(value).all():
                raise BundleError(f"{self._path}: {name}_init: found NaN or Inf, expected finite values")
            init[name] = np.broadcast_to(value, like.shape).astype(like.dtype)
        return init

    def _allocate(self) -> None:
        """Own buffers and the two bindings over them; the state is the initial one."""
        x = np.zeros((self._batch, self._input_dim), np.float32)
        y = np.zeros((self._batch, self._output_dim), np.float32)
        self.x, self.y = (x[0], y[0]) if self._batch == 1 else (x, y)
        head = {name: np.zeros((self._batch, *shape), np.float32) for name, shape in self._head.items()}
        self.head = {name: array[0] if self._batch == 1 else array for name, array in head.items()}
        first = {name: init.copy() for name, init in self._init.items()}
        second = {name: array if name in self._in_place else array.copy() for name, array in first.items()}
        self._buffers = [first, second]
        self._live = 0
        self._calls: list[Callable[[], object]] = []
        for now in range(2):
            binding = self._session.io_binding()
            for name, array in {"x": x, **self._buffers[now]}.items():
                binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            following = {f"{name}_out": array for name, array in self._buffers[1 - now].items()}
            for name, array in {"y": y, **head, **following}.items():
                binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            self._calls.append(_prebuilt_call(self._session, binding))

    def run(self) -> None:
        try:
            self._calls[self._live]()
        except Exception as error:  # onnxruntime's own classes share no base but Exception
            raise ModelError(f"{self._path}: onnxruntime failed in a step: {error}") from error

    def commit(self) -> None:
        self._live = 1 - self._live

    def state(self) -> dict[str, StateArray]:
        return {name: array.copy() for name, array in self._buffers[self._live].items()}

    def load_state(self, state: Mapping[str, StateArray]) -> None:
        if state.keys() != self._states.keys():
            raise SnapshotError(f"{self._path}: states: found {sorted(state)}, expected {sorted(self._states)}")
        for name, like in self._states.items():
            found = state[name]
            if found.shape != like.shape or found.dtype != like.dtype:
                raise SnapshotError(
                    f"{self._path}: state {name}: found {found.dtype} {found.shape}, expected {like.dtype} {like.shape}"
                )
        self._adopt(state)

    def reset(self) -> None:
        self._adopt(self._init)

    def fork(self) -> OrtEngine:
        twin = copy.copy(self)
        twin._allocate()
        twin._adopt(self._buffers[self._live])
        return twin

    def _adopt(self, state: Mapping[str, StateArray]) -> None:
        for name, array in self._buffers[self._live].items():
            array[...] = state[name]


def _open_session(bundle: Bundle) -> Any:
    import onnxruntime as ort

    wanted = bundle.manifest.onnxruntime_min
    if _version(ort.__version__) < _version(wanted):
        raise BundleError(f"{bundle.path}: onnxruntime: found {ort.__version__}, expected {wanted} or newer")
    options = ort.SessionOptions()
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.enable_mem_pattern = True
    options.enable_mem_reuse = False
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(bundle.bytes, options, providers=["CPUExecutionProvider"])
    except BundleError:
        raise
    except Exception as error:  # onnxruntime's own classes share no base but Exception
        raise BundleError(f"{bundle.path}: onnxruntime {ort.__version__} cannot load it: {error}") from error


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:3] if part.isdigit())


def _check_tensors(bundle: Bundle, session: Any) -> None:
    manifest = bundle.manifest
    lead: int | str = manifest.batch
    states = {state.name: tuple(state.shape[1:]) for state in manifest.states}
    types = {state.name: _TENSOR_TYPES[state.dtype] for state in manifest.states}
    types |= {f"{name}_{end}": kind for name, kind in types.items() for end in ("out", "init")}
    inputs = {"x": (manifest.input_dim,), **states}
    outputs = {"y": (manifest.output_dim,), **manifest.head_outputs}
    outputs |= {f"{name}_out": shape for name, shape in states.items()}
    init = {f"{name}_init": shape for name, shape in states.items()}
    for side, expected, found in (
        ("inputs", inputs, session.get_inputs()),
        ("outputs", outputs | init, session.get_outputs()),
    ):
        names = {tensor.name for tensor in found}
        if names != expected.keys():
            raise BundleError(
                f"{bundle.path}: graph {side}: found {sorted(names)}, expected {sorted(expected)} "
                f"(missing {sorted(expected.keys() - names)}, extra {sorted(names - expected.keys())})"
            )
        for tensor in found:
            wanted = types.get(tensor.name, "tensor(float)")
            if tensor.type != wanted:
                raise BundleError(f"{bundle.path}: tensor {tensor.name}: found {tensor.type}, expected {wanted}")
            # An initial state is constant, so one row may stand for every stream of a batch.
            leads = {lead, 1} if tensor.name in init else {lead}
            if not _shape_agrees(tensor.shape, expected[tensor.name], leads):
                raise BundleError(
                    f"{bundle.path}: tensor {tensor.name}: found shape {list(tensor.shape)}, "
                    f"expected {[lead, *expected[tensor.name]]}"
                )


def _shape_agrees(found: Sequence[int | str | None], rest: tuple[int, ...], leads: set[int | str]) -> bool:
    if len(found) != len(rest) + 1 or tuple(found[1:]) != rest:
        return False
    return found[0] in leads if isinstance(found[0], int) else "B" in leads


def _prebuilt_call(session: Any, binding: Any) -> Callable[[], object]:
    """One argument-free call that steps the binding.

    onnxruntime's Python wrapper costs 1 µs a step and building RunOptions 30; the objects below it take
    prebuilt ones (DESIGN §3). They are private, so the public call is the way back where they are missing.
    """
    import onnxruntime as ort

    raw_session: Any = getattr(session, "_sess", None)
    raw_binding: Any = getattr(binding, "_iobinding", None)
    if not hasattr(raw_session, "run_with_iobinding") or raw_binding is None:
        return partial(session.run_with_iobinding, binding)
    options = ort.RunOptions()
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    return partial(raw_session.run_with_iobinding, raw_binding, options)
