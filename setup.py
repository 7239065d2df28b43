"""What pyproject.toml cannot say: two cffi extensions, and the POSIX board as an executable beside them."""

from __future__ import annotations

from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

PACKAGE = "firmware_bridge/kizzasi_bridge"
NO_COMPILER = (
    "kizzasi-edge is C at its core and needs a C compiler and Python's headers to install "
    "(Debian/Ubuntu: apt install build-essential python3-dev). The compiler said: "
)


class BuildExt(build_ext):
    """Builds the extensions, then links kizzasi_bridge/bin/kz_posix_board with the same compiler."""

    def run(self) -> None:
        try:
            super().run()
            self.build_board()
        except (BaseError, CCompilerError, OSError) as e:
            raise SystemExit(f"{NO_COMPILER}{e}") from e

    def build_board(self) -> None:
        in_place = self.inplace or self.editable_mode
        target = Path(PACKAGE if in_place else f"{self.build_lib}/kizzasi_bridge") / "bin"
        target.mkdir(parents=True, exist_ok=True)
        core = [Path("firmware_bridge/c") / f"kz_{part}.c" for part in ("guard", "channel", "wire", "node")]
        sources = [*core, *Path("firmware_bridge/boards/posix").glob("*.c")]
        objects = self.compiler.compile(
            sorted(map(str, sources)),
            output_dir=f"{self.build_temp}/posix_board",
            include_dirs=["firmware_bridge/c"],
            extra_postargs=["-O2", "-std=c99", "-Wall", "-Wextra"],
        )
        self.compiler.link_executable(objects, "kz_posix_board", output_dir=str(target))


setup(
    cffi_modules=[f"{PACKAGE}/build_core.py:ffi", f"{PACKAGE}/build_step.py:ffi"],
    cmdclass={"build_ext": BuildExt},
)
