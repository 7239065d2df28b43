"""A model file is read back as written, and every way to damage it is an error that says what and where."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kizzasi_edge.bundle import Bundle, Manifest, write_bundle
from kizzasi_edge.errors import BundleError
from kizzasi_edge.onnx_wire import initializer_shapes, metadata_message


def rewritten(bundle: Bundle, edit: Any) -> Path:
    """The bundle's file with its manifest JSON edited in place."""
    data = bundle.path.read_bytes()
    raw = json.loads(bundle.manifest.model_dump_json())
    edit(raw)
    message = metadata_message("kizzasi.manifest", json.dumps(raw))
    bundle.path.write_bytes(data[: bundle.manifest.core_bytes] + message)
    return bundle.path


def test_reads_back_what_was_written(arm: Bundle, arm_core: bytes) -> None:
    opened = Bundle.open(arm.path)
    assert opened.manifest == arm.manifest
    assert opened.bytes[: len(arm_core)] == arm_core
    assert opened.manifest.core_bytes == len(arm_core)
    assert len(opened.digest) == 64
    assert opened.manifest.input_names == (
        "pan/position",
        "lift/position",
        "pan/target_position",
        "lift/target_position",
    )
    assert list(arm.path.parent.iterdir()) == [arm.path], "a temporary file was left behind"


def test_onnx_and_onnxruntime_read_the_appended_manifest(arm: Bundle) -> None:
    entries = {item.key: item.value for item in onnx.load(arm.path).metadata_props}
    assert Manifest.model_validate_json(entries["kizzasi.manifest"]) == arm.manifest
    session = ort.InferenceSession(arm.path, providers=["CPUExecutionProvider"])
    assert "kizzasi.manifest" in session.get_modelmeta().custom_metadata_map


def test_shapes_of_initializers_agree_with_onnx(arm_core: bytes) -> None:
    graph = onnx.load_from_string(arm_core).graph
    assert initializer_shapes(memoryview(arm_core)) == {item.name: tuple(item.dims) for item in graph.initializer}


def test_digest_depends_on_the_graph_only(tmp_path: Path, arm: Bundle, arm_core: bytes, build: Any) -> None:
    relabelled = arm.manifest.model_copy(update={"kind": "other"})
    assert write_bundle(tmp_path / "b.onnx", arm_core, relabelled).digest == arm.digest
    other = build.recurrent_core(seed=8)
    manifest = build.manifest_for(other, build.inputs, build.outputs)
    assert write_bundle(tmp_path / "c.onnx", other, manifest).digest != arm.digest


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"none\.onnx: no such model file"):
        Bundle.open(tmp_path / "none.onnx")
    with pytest.raises(BundleError, match="cannot be read"):
        Bundle.open(tmp_path)


@pytest.mark.parametrize("junk", [b"", b"hello, this is no model", b"\x00" * 64, b"\xff" * 64])
def test_not_an_onnx_file(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "junk.onnx"
    path.write_bytes(junk)
    with pytest.raises(BundleError, match=r"junk\.onnx: not an ONNX file"):
        Bundle.open(path)


def test_onnx_file_without_manifest(tmp_path: Path, arm_core: bytes) -> None:
    path = tmp_path / "bare.onnx"
    path.write_bytes(arm_core)
    with pytest.raises(BundleError, match=r"bare\.onnx: no kizzasi\.manifest in metadata_props"):
        Bundle.open(path)


def test_changed_weight_is_found(arm: Bundle) -> None:
    data = bytearray(arm.path.read_bytes())
    weights = onnx.numpy_helper.to_array(onnx.load(arm.path).graph.initializer[0]).tobytes()
    at = data.find(weights)
    assert at > 0
    data[at] ^= 1
    arm.path.write_bytes(bytes(data))
    with pytest.raises(BundleError, match=rf"core_sha256: found [0-9a-f]{{64}}, expected {arm.digest}"):
        Bundle.open(arm.path)


def test_replaced_since_opened(arm: Bundle, arm_core: bytes) -> None:
    opened = Bundle.open(arm.path)
    write_bundle(arm.path, arm_core, arm.manifest.model_copy(update={"kind": "other"}))
    with pytest.raises(BundleError, match="replaced since it was opened"):
        _ = opened.bytes


@pytest.mark.parametrize("version", [2, 0, "1", None, True])
def test_another_schema_version(arm: Bundle, version: object) -> None:
    def edit(raw: dict[str, Any]) -> None:
        raw |= {"schema_version": version, "a_key_of_the_future": 1}

    with pytest.raises(BundleError, match=rf"arm\.onnx: schema_version: found {version}, expected 1"):
        Bundle.open(rewritten(arm, edit))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda raw: raw.update(colour="red"), "colour: found an unknown key"),
        (lambda raw: raw["parity"].update(mood=1), r"parity\.mood: found an unknown key"),
        (lambda raw: raw.pop("sample_rate_hz"), "sample_rate_hz: found nothing, expected a value"),
        (lambda raw: raw.update(sample_rate_hz=0), "sample_rate_hz: found 0, expected"),
        (lambda raw: raw.update(sample_rate_hz=float("nan")), "sample_rate_hz: found nan, expected"),
        (lambda raw: raw.update(input_dim=5), r"inputs: found 4 names, expected input_dim = 5"),
        (lambda raw: raw["outputs"].pop(), r"outputs: found 1 names, expected output_dim = 2"),
        (lambda raw: raw["inputs"][1].update(name="pan/position"), "inputs: found repeated names"),
        (lambda raw: raw["states"][0].update(shape=[2, 8]), r"states\.h\.shape: found \[2, 8\], expected 1"),
        (lambda raw: raw["states"][0].update(dtype="float16"), r"states\.0\.dtype: found 'float16'"),
        (lambda raw: raw["states"][0].update(name="x"), "clashing tensor names"),
        (lambda raw: raw.update(variant="quick"), "variant: found 'quick', expected"),
        (lambda raw: raw["head"].update(kind="fuzzy"), r"head\.kind: found 'fuzzy'"),
        (lambda raw: raw["head"].update(kind="categorical"), r"tokenizer: found none, expected one"),
        (lambda raw: raw["parity"]["vector"]["y"].pop(), r"parity\.vector\.y: found 7 rows, expected 8"),
        (lambda raw: raw["parity"]["vector"]["x"][0].pop(), r"parity\.vector\.x: found rows of \[3, 4\]"),
        (lambda raw: raw.update(core_bytes=7), "core_bytes: found 7, expected"),
    ],
)
def test_wrong_manifest(arm: Bundle, edit: Any, message: str) -> None:
    path = rewritten(arm, edit)
    with pytest.raises(BundleError, match=message) as caught:
        Bundle.open(path)
    assert str(path) in str(caught.value)


def test_manifest_must_come_last_and_once(arm: Bundle) -> None:
    data = arm.path.read_bytes()
    arm.path.write_bytes(data + metadata_message("another", "entry"))
    with pytest.raises(BundleError, match=r"core_bytes: .* must come last"):
        Bundle.open(arm.path)
    arm.path.write_bytes(data + data[arm.manifest.core_bytes :])
    with pytest.raises(BundleError, match="found twice, expected once"):
        Bundle.open(arm.path)
    with pytest.raises(BundleError, match=r"already holds kizzasi\.manifest"):
        write_bundle(arm.path, data, arm.manifest)


def test_failed_write_keeps_the_old_file(arm: Bundle) -> None:
    before = arm.path.read_bytes()
    with pytest.raises(BundleError, match="not an ONNX file"):
        write_bundle(arm.path, b"nonsense", arm.manifest)
    assert arm.path.read_bytes() == before
    with pytest.raises(BundleError, match="cannot be written"):
        write_bundle(arm.path.parent / "nowhere" / "m.onnx", before[: arm.manifest.core_bytes], arm.manifest)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_damage_escapes(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory, arm_core: bytes, build: Any
) -> None:
    """Any flipped bit or cut is a BundleError, or touched only what the manifest says in words."""
    path = tmp_path_factory.getbasetemp() / "fuzz.onnx"
    bundle = write_bundle(path, arm_core, build.manifest_for(arm_core, build.inputs, build.outputs))
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(content))
    with contextlib.suppress(BundleError):
        opened = Bundle.open(path)
        assert opened.digest == bundle.digest
        assert opened.bytes[: len(arm_core)] == arm_core
