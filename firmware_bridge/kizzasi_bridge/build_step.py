"""cffi build of ``kizzasi_bridge._kz_step``: the SIMD kernels of model steps, apart from the strict `_kz_core`.

Optimised for speed where the core is built for sameness; still never ``-ffast-math``, which would switch the
whole process to flush-to-zero when the library is loaded. setup.py names the ``ffi`` object below;
``python firmware_bridge/kizzasi_bridge/build_step.py`` builds it alone, in place.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from cffi import FFI

PACKAGE = Path("firmware_bridge/kizzasi_bridge")
C = Path("firmware_bridge/c/step")
HEADER = C / "kz_gemv.h"
SOURCES = [C / "kz_gemv.c"]
CFLAGS = ["-O3", "-std=gnu11", "-ffp-contract=fast", "-Wall", "-Wextra"]

ROOT = Path(__file__).resolve().parents[2]


def make(prefix: Path = Path()) -> FFI:
    """The FFI object; ``prefix`` goes before the source paths (setuptools wants them relative)."""
    text = re.sub(r"/\*.*?\*/", "", (ROOT / HEADER).read_text(), flags=re.S)
    ffi = FFI()
    ffi.cdef(re.sub(r"^#(?!define \w+ +\d+ *$).*$", "", text, flags=re.M))
    ffi.set_source(
        "kizzasi_bridge._kz_step",
        f'#include "{HEADER.name}"',
        sources=[str(prefix / source) for source in SOURCES],
        include_dirs=[str(prefix / C)],
        depends=[str(prefix / HEADER)],
        extra_compile_args=CFLAGS,
    )
    return ffi


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        built = make(ROOT).compile(tmpdir=scratch, verbose=True)
        shutil.copy2(built, ROOT / PACKAGE / "_kz_step.abi3.so")
else:
    ffi = make()
