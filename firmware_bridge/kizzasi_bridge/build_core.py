"""cffi build of ``kizzasi_bridge._kz_core``: guard, wire and node, the same C sources the firmware is made of.

setup.py names the ``ffi`` object below; ``python firmware_bridge/kizzasi_bridge/build_core.py`` builds it alone,
in place. Declarations come from the headers themselves, so there is no second list to keep in step.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from cffi import FFI

PACKAGE = Path("firmware_bridge/kizzasi_bridge")
C = Path("firmware_bridge/c")

# What Python may call. A new header with plain C declarations is added here, and its source below.
HEADERS = [
    C / "kz_guard.h",
    C / "kz_codes.h",
    C / "kz_project.h",
    C / "kz_coupled.h",
    C / "kz_bones.h",
    PACKAGE / "guard_glue.h",
    PACKAGE / "host_wire.h",
    PACKAGE / "host_glue.h",
]
SOURCES = [
    C / "kz_guard.c",
    C / "kz_channel.c",
    C / "kz_wire.c",
    C / "kz_node.c",
    C / "kz_project.c",
    C / "kz_project_rules.c",
    C / "kz_project_dual.c",
    C / "kz_project_sqp.c",
    C / "kz_project_soft.c",
    C / "kz_coupled.c",
    C / "kz_rules.c",
    C / "kz_bones.c",
    PACKAGE / "guard_glue.c",
    PACKAGE / "host_wire.c",
    PACKAGE / "host_glue.c",
]
CFLAGS = ["-O2", "-std=c99", "-Wall", "-Wextra", "-ffp-contract=off"]

# The parts of host_types.h that Python reads and writes.
TYPES = """
typedef struct { ...; } kz_host_decoder;
typedef struct {
    int32_t sensors[...]; int32_t out[...]; int32_t applied[...];
    uint16_t enabled; uint8_t inputs, boundary, ideal; uint32_t dropped;
    uint8_t fault; uint16_t applied_seq, clamped, ignored, misses, stale;
    ...;
} kz_host_node;
"""

ROOT = Path(__file__).resolve().parents[2]


def declarations(path: Path) -> str:
    """A header as cffi can read it: constants kept, other preprocessor lines and comments dropped."""
    text = re.sub(r"/\*.*?\*/", "", (ROOT / path).read_text(), flags=re.S)
    text = re.sub(r"#ifdef __cplusplus.*?#endif", "", text, flags=re.S)
    return re.sub(r"^#(?!define \w+ +(?:0x[0-9A-Fa-f]+|\d+) *$).*$", "", text, flags=re.M)


def make(prefix: Path = Path()) -> FFI:
    """The FFI object; ``prefix`` goes before the source paths (setuptools wants them relative)."""
    ffi = FFI()
    ffi.cdef(TYPES)
    for header in HEADERS:
        ffi.cdef(declarations(header))
    ffi.set_source(
        "kizzasi_bridge._kz_core",
        "\n".join(f'#include "{h.name}"' for h in HEADERS),
        sources=[str(prefix / s) for s in SOURCES],
        include_dirs=[str(prefix / C), str(prefix / PACKAGE)],
        depends=[
            str(prefix / h)
            for h in [
                *HEADERS,
                C / "kz_wire.h",
                C / "kz_channel.h",
                C / "kz_quick.h",
                C / "kz_node.h",
                C / "kz_rules.h",
                C / "kz_project_parts.h",
                PACKAGE / "host_types.h",
            ]
        ],
        extra_compile_args=CFLAGS,
        libraries=["m"],
    )
    return ffi


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        built = make(ROOT).compile(tmpdir=scratch, verbose=True)
        target = ROOT / PACKAGE / "_kz_core.abi3.so"  # as setuptools names it
        shutil.copy2(built, f"{target}.new")
        os.replace(f"{target}.new", target)  # a process that has it loaded keeps its own
else:
    ffi = make()
