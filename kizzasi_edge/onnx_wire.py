"""Reads the few protobuf fields of an ONNX file that loading needs: a robot needs no `onnx` package.

ONNX is a protobuf message (onnx/onnx.proto, https://github.com/onnx/onnx). Only the wire format is parsed
(https://protobuf.dev/programming-guides/encoding/), and nothing is copied but what is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

MODEL_GRAPH = 7  # ModelProto.graph
MODEL_METADATA = 14  # ModelProto.metadata_props
GRAPH_NODE = 1  # GraphProto.node
GRAPH_INITIALIZER = 5  # GraphProto.initializer
_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5


class WireFormatError(ValueError):
    """The bytes are not a protobuf message."""


class Field(NamedTuple):
    """One field: its number, its integer value or its bytes, and where it starts and ends in the buffer."""

    number: int
    value: int | memoryview
    start: int
    end: int


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise WireFormatError(f"byte {at}: a varint does not end")


def fields(data: memoryview) -> Iterator[Field]:
    """The fields of one message in file order. Raises WireFormatError where the bytes are not protobuf."""
    at = 0
    while at < len(data):
        start = at
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise WireFormatError(f"byte {start}: field number 0")
        value: int | memoryview
        if kind == _VARINT:
            value, at = _varint(data, at)
        elif kind in (_I64, _I32, _LEN):
            size = {_I64: 8, _I32: 4}.get(kind, 0)
            if kind == _LEN:
                size, at = _varint(data, at)
            if at + size > len(data):
                raise WireFormatError(f"byte {start}: a field of {size} bytes runs past the end")
            value, at = data[at : at + size], at + size
        else:
            raise WireFormatError(f"byte {start}: wire type {kind}")
        yield Field(number, value, start, at)


def string_entry(message: memoryview) -> tuple[str, str]:
    """Key and value of a StringStringEntryProto. Raises WireFormatError where it is none."""
    parts = {1: "", 2: ""}
    for field in fields(message):
        if field.number in parts and isinstance(field.value, memoryview):
            try:
                parts[field.number] = bytes(field.value).decode()
            except UnicodeDecodeError as error:
                raise WireFormatError(f"a metadata entry is not UTF-8: {error}") from None
    return parts[1], parts[2]


def metadata_message(key: str, value: str) -> bytes:
    """A ModelProto that holds one metadata_props entry: appended to a model it merges into it."""

    def length_delimited(number: int, payload: bytes) -> bytes:
        size, head = len(payload), bytearray([number << 3 | _LEN])
        while size >= 0x80:
            head.append(size & 0x7F | 0x80)
            size >>= 7
        head.append(size)
        return bytes(head) + payload

    entry = length_delimited(1, key.encode()) + length_delimited(2, value.encode())
    return length_delimited(MODEL_METADATA, entry)


def initializer_shapes(model: memoryview) -> dict[str, tuple[int, ...]]:
    """Name → shape of each initializer of a ModelProto's graph, in file order."""
    shapes: dict[str, tuple[int, ...]] = {}
    for graph in fields(model):
        if graph.number != MODEL_GRAPH or not isinstance(graph.value, memoryview):
            continue
        for tensor in fields(graph.value):
            if tensor.number == GRAPH_INITIALIZER and isinstance(tensor.value, memoryview):
                name, shape = _tensor_name_and_shape(tensor.value)
                shapes[name] = shape
    return shapes


def _tensor_name_and_shape(tensor: memoryview) -> tuple[str, tuple[int, ...]]:
    name, shape = "", []
    for field in fields(tensor):  # TensorProto: dims = 1 (packed or one by one), name = 8
        if field.number == 1 and isinstance(field.value, int):
            shape.append(field.value)
        elif field.number == 1 and isinstance(field.value, memoryview):
            at = 0
            while at < len(field.value):
                dim, at = _varint(field.value, at)
                shape.append(dim)
        elif field.number == 8 and isinstance(field.value, memoryview):
            name = bytes(field.value).decode()
    return name, tuple(shape)


def gemv_shapes(model: memoryview) -> list[tuple[int, int]]:
    """(outputs n, inputs k) of each product with a constant matrix in a ModelProto's graph, in graph order.

    These are the MatMul and Gemm nodes whose second input is a 2-D initializer [k, n] ([n, k] under Gemm's
    transB, which is of no matter to what has to be streamed), also behind a Cast (half floats), and MatMulNBits with
    its initializer [n, blocks, bytes of a block] of 8-bit weights (k is then rounded up to whole blocks).
    """
    shapes = initializer_shapes(model)
    found = []
    for graph in fields(model):
        if graph.number != MODEL_GRAPH or not isinstance(graph.value, memoryview):
            continue
        for node in fields(graph.value):
            if node.number != GRAPH_NODE or not isinstance(node.value, memoryview):
                continue
            kind, inputs, outputs = _node(node.value)
            if kind == "Cast" and inputs[0] in shapes:
                shapes[outputs[0]] = shapes[inputs[0]]
            shape = shapes.get(inputs[1], ()) if len(inputs) > 1 else ()
            if kind in ("MatMul", "Gemm") and len(shape) == 2:
                found.append((shape[1], shape[0]))
            elif kind == "MatMulNBits" and len(shape) == 3:
                found.append((shape[0], shape[1] * shape[2]))
    return found


def _node(node: memoryview) -> tuple[str, list[str], list[str]]:
    """Operator, inputs and outputs of a NodeProto."""
    names: dict[int, list[str]] = {1: [], 2: [], 4: []}  # input = 1, output = 2, op_type = 4
    for field in fields(node):
        if field.number in names and isinstance(field.value, memoryview):
            names[field.number].append(bytes(field.value).decode())
    return "".join(names[4]), names[1], names[2]
