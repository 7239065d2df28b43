"""Mutants of one C source of the guard: which of them do the tests notice? See README.md.

    python tests/mutation/c_mutants.py kz_guard.c [--lines 10-40] [--every 3]

Every operator and constant is replaced in turn, every simple statement removed. A mutant that the compiler refuses does
not count; one that it translates to the very machine code of the original is equivalent, one that repeats another's is
that one again. What is left is judged in a private copy of the sources: first by the adversarial harness in
firmware_bridge/c/prove, then by the tests that call the functions, then by the harness under the undefined-behaviour
sanitiser. Prints each survivor with its line, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cffi  # noqa: F401  these two: loaded once, for every child
import hypothesis  # noqa: F401
import pytest

ROOT = Path(__file__).parents[2]
C = Path("firmware_bridge/c")

TOKEN = re.compile(
    r"""(?P<skip>/\*.*?\*/|//[^\n]*|^[ ]*\#[^\n]*|"(?:\\.|[^"\\])*"|\s+)
    |(?P<number>0[xX][0-9a-fA-F]+[uUlL]*|(?:\d+\.\d*|\d+)(?:[eE][-+]?\d+)?[uUlLfF]*)
    |(?P<word>[A-Za-z_]\w*)
    |(?P<sign><<=|>>=|<<|>>|<=|>=|==|!=|&&|\|\||\+\+|--|->|[-+*/%&|^]=|.)""",
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
BINARY = {
    "<": ("<=", ">="), "<=": ("<", ">"), ">": (">=", "<"), ">=": (">", "<="), "==": ("!=",), "!=": ("==",),
    "+": ("-",), "-": ("+",), "*": ("/",), "/": ("*",), "%": ("*",), "<<": (">>",), ">>": ("<<",),
    "&": ("|",), "|": ("&",), "^": ("|",), "&&": ("||",), "||": ("&&",),
    "+=": ("-=", "="), "-=": ("+=", "="), "*=": ("/=", "="), "/=": ("*=", "="), "|=": ("&=", "="), "&=": ("|=", "="),
    "^=": ("|=", "="), ">>=": ("<<=",), "++": ("--",), "--": ("++",),
}  # fmt: skip
UNARY = ("-", "!", "~")
WORDS = {"min32": "max32", "max32": "min32", "floor": "ceil", "ceil": "floor", "break": "continue", "continue": "break"}
KEYWORDS = ("return", "break", "continue", "goto", "else", "const", "static", "typedef", "enum", "struct", "int",
            "double", "for", "while", "do", "if", "switch", "case", "default", "uint8_t", "int32_t", "uint32_t",
            "int64_t", "uint64_t", "kz_window", "kz_axis", "kz_motion", "kz_limit", "kz_row", "kz_quadratic",
            "kz_projection")  # fmt: skip

HARNESS = {
    "kz_guard.c": ("prove_guard", ("100000", "1")),
    "kz_rules.c": ("prove_coupled", ("200000", "1")),
}
LIMIT = {"prove_guard": 0.4, "prove_coupled": 4.0}
"""Seconds, ten times what it takes."""
TESTS = {"kz_guard.c": "tests/edge/test_kz_guard.py", "kz_rules.c": "tests/edge/test_kz_rules.py"}
PARTS = {"prove_guard": ("kz_guard.c",), "prove_coupled": ("kz_guard.c", "kz_rules.c", "kz_coupled.c", "kz_project*.c")}


@dataclass(frozen=True)
class Mutant:
    line: int
    start: int
    end: int
    new: str

    def of(self, text: str) -> str:
        return text[: self.start] + self.new + text[self.end :]

    def shown(self, text: str) -> str:
        begin, end = text.rfind("\n", 0, self.start) + 1, text.find("\n", self.end)
        old = text[self.start : self.end]
        return f"{self.line}: {old!r} -> {self.new!r} at {self.start - begin + 1}: {text[begin:end].strip()}"


def mutants(text: str) -> Iterator[Mutant]:
    tokens = [found for found in TOKEN.finditer(text) if found.lastgroup != "skip"]
    opened: list[str] = []
    heads = False  # the last `)` closed an if, for or while
    for i, token in enumerate(tokens):
        word, kind = token[0], token.lastgroup
        before = tokens[i - 1] if i else None
        line = text.count("\n", 0, token.start()) + 1
        value = before is not None and (before.lastgroup in ("word", "number") or before[0] in (")", "]"))
        value = value and before is not None and before[0] != "return"
        if kind == "number":
            yield from (Mutant(line, *token.span(), new) for new in constants(word))
        elif word in WORDS:
            yield Mutant(line, *token.span(), WORDS[word])
        elif word in BINARY and (value or word in ("++", "--")):
            yield from (Mutant(line, *token.span(), new) for new in BINARY[word])
        elif word in UNARY:
            yield Mutant(line, *token.span(), "")
        starts = before is None or before[0] in (";", "{", "}", "else") or (before[0] == ")" and heads)
        if starts and "for" not in opened and (kind == "word" or word == "*") and word not in KEYWORDS:
            last = next(k for k in range(i, len(tokens)) if tokens[k][0] in (";", "{"))
            if tokens[last][0] == ";":
                yield Mutant(line, token.start(), tokens[last].start(), "")
        if word == "(":
            opened.append(before[0] if before is not None else "")
        elif word == ")":
            heads = opened.pop() in ("if", "for", "while")


def constants(word: str) -> tuple[str, ...]:
    if re.fullmatch(r"\d+", word):
        return (str(int(word) + 1),) if int(word) == 0 else (str(int(word) + 1), str(int(word) - 1))
    return (f"({word} + 1)", f"({word} - 1)")


class Bench:
    """A private copy of the sources and tests, where one file is replaced by its mutants in turn."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        shutil.copytree(ROOT / C, folder / C)
        (folder / "tests/edge").mkdir(parents=True)
        shutil.copy(ROOT / TESTS[name], folder / TESTS[name])
        self.file = folder / C / name
        self.harness, self.arguments = HARNESS[name]
        sources = [found for part in PARTS[self.harness] for found in (folder / C).glob(part) if found.name != name]
        self.others = [str(folder / f"{source.stem}.o") for source in (*sources, Path(self.harness))]
        for source, target in zip((*sources, folder / C / "prove" / f"{self.harness}.c"), self.others, strict=True):
            self.compile(str(source), target)

    def compile(self, source: str, target: str, *flags: str) -> bool:
        command = [
            "cc",
            "-std=gnu11",
            "-O2",
            "-ffp-contract=off",
            "-w",
            "-Werror=implicit-function-declaration",
            *flags,
            "-c",
            source,
            "-o",
            target,
        ]
        return self.passes(command, 60)

    def passes(self, command: Sequence[str], seconds: float) -> bool:
        """Whether it ends well within so many seconds of processor time (not of the clock: the machine may be busy)."""
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, check=False, preexec_fn=lambda: at_most(seconds)
        )
        return done.returncode == 0

    def tests_pass(self) -> bool:
        """In a child that has the slow imports already."""
        child = os.fork()
        if child:
            return os.waitpid(child, 0)[1] == 0
        try:
            at_most(20)
            os.chdir(self.folder)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            options = ["-q", "-x", "-c", os.devnull, "--rootdir", str(self.folder), "-p", "no:cacheprovider"]
            os._exit(int(pytest.main([*options, "--import-mode=importlib", TESTS[self.name]])))
        finally:
            os._exit(99)

    def code(self, text: str) -> bytes | None:
        """The machine code, or None if it does not compile."""
        self.file.write_text(text)
        target = self.folder / "mutant.o"
        return target.read_bytes() if self.compile(str(C / self.name), str(target)) else None

    def killer(self) -> str:
        """Which of the judges notices; empty if none does."""
        mutant, program = str(self.folder / "mutant.o"), str(self.folder / "prove")
        if not self.passes(["cc", mutant, *self.others, "-lm", "-o", program], 60):
            return "refused"  # it lacks a function
        if not self.passes([program, *self.arguments], LIMIT[self.harness]):
            return "harness"
        if not self.tests_pass():
            return "tests"
        flags = ("-fsanitize=undefined", "-fno-sanitize-recover")
        self.compile(str(C / self.name), mutant, *flags)
        self.passes(["cc", *flags, mutant, *self.others, "-lm", "-o", program], 60)
        return "" if self.passes([program, *self.arguments], 20) else "sanitiser"


def at_most(seconds: float) -> None:
    """Of processor time, from here; kept across exec."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", choices=sorted(HARNESS))
    parser.add_argument("--lines", default="", help="only these lines, such as 10-40")
    parser.add_argument("--every", type=int, default=1, help="only every so-manieth mutant")
    options = parser.parse_args()
    count = dict.fromkeys(("refused", "equivalent", "repeated", "harness", "tests", "sanitiser", "survived"), 0)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options.source, Path(folder))
        text = bench.file.read_text()
        original = bench.code(text)
        if original is None or (found := bench.killer()):
            raise SystemExit(f"the original does not pass: {found if original else 'cc'}")
        seen = {original}
        chosen = list(mutants(text))
        if options.lines:
            first, last = map(int, options.lines.split("-"))
            chosen = [mutant for mutant in chosen if first <= mutant.line <= last]
        for mutant in chosen[:: options.every]:
            code = bench.code(mutant.of(text))
            if code is None:
                how = "refused"
            elif code == original:
                how = "equivalent"
            elif code in seen:
                how = "repeated"
            else:
                how = bench.killer() or "survived"
                seen.add(code)
            count[how] += 1
            if how == "survived":
                sys.stdout.write(mutant.shown(text) + "\n")
                sys.stdout.flush()
    killed = count["harness"] + count["tests"] + count["sanitiser"]
    score = round(killed / max(killed + count["survived"], 1), 4)
    sys.stdout.write(json.dumps({"source": options.source, **count, "killed": killed, "score": score}) + "\n")


if __name__ == "__main__":
    main()
