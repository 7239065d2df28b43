"""``python -m kizzasi_bridge``: the same as ``kizzasi-bridge``, for makefiles that know a Python but no PATH."""

from __future__ import annotations

from .cli import main

if __name__ == "__main__":
    main()
