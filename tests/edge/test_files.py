"""What is read from others is bounded, and refused in words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kizzasi_edge.errors import GuardrailError
from kizzasi_edge.guardrails.files import MAX_DEPTH, Element, finite, read_bytes, read_xml


def test_as_much_as_the_limit_is_read_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    assert read_bytes(path, 5) == b"12345"
    with pytest.raises(GuardrailError, match=f"^{re.escape(str(path))}: larger than 4 bytes$"):
        read_bytes(path, 4)


def test_a_file_without_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with path.open("wb") as file:
        file.truncate(1 << 42)  # of holes
    with pytest.raises(GuardrailError, match=r"larger than 16777216 bytes$"):
        read_bytes(path)


def nested(tmp_path: Path, inner: str, depth: int) -> None:
    path = tmp_path / "r.xml"
    path.write_text("<a>" * depth + inner + "</a>" * depth)
    root = read_xml(path)
    assert len(list(root.iter("a"))) == depth + inner.count("<a")


def test_depth_is_counted_as_elements_open_and_close(tmp_path: Path) -> None:
    nested(tmp_path, "", MAX_DEPTH)
    nested(tmp_path, "<a/>" * MAX_DEPTH, MAX_DEPTH - 1)
    for inner in ("<a/>", "<a/><a><b/></a>"):
        with pytest.raises(GuardrailError, match=r"r\.xml: line 1: more than 100 nested elements$"):
            nested(tmp_path, inner, MAX_DEPTH - (len(inner) > 4))


def test_an_element_knows_its_line(tmp_path: Path) -> None:
    (tmp_path / "r.xml").write_text("<a>\n<b>\n<c/></b></a>")
    lines = [element.line for element in read_xml(tmp_path / "r.xml").iter() if isinstance(element, Element)]
    assert lines == [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "shown"),
    [("1_0", "1_0"), ("x" * 60, "x" * 60), ("x" * 61, "x" * 57 + "…"), ("inf", "inf"), ("", ""), ("1e999", "1e999")],
)
def test_what_is_no_finite_number(text: str, shown: str) -> None:
    assert finite("w", "1.5") == 1.5
    with pytest.raises(GuardrailError) as error:
        finite("w", text)
    assert str(error.value) == f"w: found {shown!r}; expected a finite number"
