"""The demo's gateway process: ``kizzasi-edge run``, with a model that may be sabotaged.

``python -m kizzasi_edge.demo.gateway robot.toml [ADVERSARY]``
"""

from __future__ import annotations

import sys

from kizzasi_edge.config import load_config
from kizzasi_edge.demo.physics import ASSETS
from kizzasi_edge.demo.sabotage import Sabotaged
from kizzasi_edge.errors import KizzasiError
from kizzasi_edge.robot import Robot


def main(config: str, adversary: str | None = None) -> int:
    """Run until the control socket says stop; exit status 1 with the reason on stderr on an error of ours."""
    try:
        wrap = None if adversary is None else lambda policy: Sabotaged(policy, adversary, ASSETS / "untrained.onnx")
        Robot(load_config(config), wrap=wrap).run()
    except KizzasiError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:3]))
