"""The code that docs/porting.md shows is the board's own."""

from __future__ import annotations

import re

from images import BOARD

PAGE = (BOARD.parents[2] / "docs" / "porting.md").read_text()


def test_every_block_is_in_the_file_it_names() -> None:
    blocks = re.findall(r"^```c\n/\* (\S+) \*/\n(.*?)^```", PAGE, re.S | re.M)
    assert len(blocks) == len(re.findall(r"^```c$", PAGE, re.M)) >= 5
    for name, code in blocks:
        assert code in (BOARD / name).read_text(), f"{name}:\n{code}"


def test_every_function_of_the_board_is_explained() -> None:
    header = (BOARD.parents[1] / "c" / "kz_node.h").read_text()
    table = re.search(r"typedef struct \{((?:(?!typedef).)*)\} kz_board;", header, re.S)
    assert table
    functions = set(re.findall(r"\(\*(\w+)\)\(", table[1]))
    assert len(functions) == 7
    assert functions == set(re.findall(r"^\| `(\w+)` \|", PAGE, re.M))
