"""One page that shows what a guard file permits, and what it makes of a saboteur's commands.

    python -m kizzasi_edge.guardrails.explore arm.guard.toml --joint elbow_joint --pair elbow_joint wrist_1_joint

The position-velocity plane of a joint with the exact boundary of its viable set, a sabotaged trajectory before and
after the guard, and the plane of a pair of joints with the rules that couple them.
"""

from __future__ import annotations

import argparse
import html
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kizzasi_edge import page
from kizzasi_edge.errors import GuardrailError, KizzasiError
from kizzasi_edge.guardrails.explore_plots import in_time, pair_plane, phase_plane
from kizzasi_edge.guardrails.explore_trial import Count, Motion, Trial, broken, counts, sabotage
from kizzasi_edge.guardrails.faults import State
from kizzasi_edge.guardrails.rows import Quadratic, Row
from kizzasi_edge.guardrails.stack import Guardrails


def write_page(
    guard: Guardrails, path: Path, joint: str | None = None, pair: tuple[str, str] | None = None, seed: int = 1
) -> None:
    """Write the page for ``joint`` (default: the first) and ``pair`` (default: the first two, if there are two).

    Raises :class:`GuardrailError` for a joint that the guard does not have and for a guard of torques or poses,
    :class:`MissingExtra` without matplotlib.
    """
    ranged = Motion.of(guard).ranged
    chosen = _index(guard, joint or guard.joints[0])
    both = pair or (guard.joints[:2] if len(guard.joints) > 1 else None)
    couple = None if both is None else (_index(guard, both[0]), _index(guard, both[1]))
    trial = sabotage(guard, seed)
    name = guard.joints[chosen]
    body = [page.head(f"guard {guard.where}"), *_judged(guard, trial, seed)]
    if ranged[chosen]:
        body.append(page.section(f"{name}: safe set and trajectory", phase_plane(guard, chosen, trial)))
    body.append(page.section(f"{name}: before and after the guard", in_time(guard, chosen, trial)))
    if couple is not None and ranged[couple[0]] and ranged[couple[1]]:
        title = f"{guard.joints[couple[0]]} and {guard.joints[couple[1]]}"
        body.append(page.section(title, pair_plane(guard, couple, trial, guard.rows, guard.quadratics)))
    body.append(f"<h2>What the guard promises</h2><pre>{html.escape(guard.explain())}</pre></html>")
    path.write_text("\n".join(body))


def _judged(guard: Guardrails, trial: Trial, seed: int) -> list[str]:
    """The verdict, and what it rests on: violations by joint and by rule that couples joints, and states."""
    found = counts(trial)
    rules = _coupled(guard, trial)
    enforced = {rule.name for rule in guard.spec.temporal if rule.mode == "enforce"}
    clean = (
        all(after == Count(0, 0, 0) for _, _, after in found)
        and not any(after for _, rule, _, after in rules if rule.hard)
        and not enforced & set(trial.violated)
    )
    states = {State(state).name: int(n) for state, n in zip(*np.unique(trial.states, return_counts=True), strict=True)}
    lines = [
        f"<h1>{html.escape(guard.where)}: <span class={'ok' if clean else 'bad'}>"
        f"{'no limit was violated' if clean else 'limits were VIOLATED'}</span></h1>",
        f"<p>A saboteur (seed {seed}) sends {len(trial.sent)} commands; violations, counted in quanta:</p>",
        "<table><tr><th>joint<th>position<br>proposed<th>→ sent<th>velocity<br>proposed<th>→ sent"
        "<th>acceleration<br>proposed<th>→ sent",
        *(
            f"<tr><td>{html.escape(joint)}<td>{before.position}<td>{after.position}<td>{before.velocity}"
            f"<td>{after.velocity}<td>{before.acceleration}<td>{after.acceleration}"
            for joint, before, after in found
        ),
        "</table>",
    ]
    if rules:
        lines += [
            "<table><tr><th>rule<th>kept on<th>proposed<th>→ sent",
            *(
                f"<tr><td>{html.escape(name)}<td>{rule.on}, {'hard' if rule.hard else 'soft'}<td>{before}<td>{after}"
                for name, rule, before, after in rules
            ),
            "</table>",
        ]
    if guard.spec.temporal:
        listed = ", ".join(html.escape(name) for name in trial.violated) or "none"
        lines.append(f"<p>Temporal rules violated: {listed}.</p>")
    if set(states) != {"NOMINAL"}:
        lines.append(f"<p>Periods in each state: {', '.join(f'{name} {n}' for name, n in states.items())}.</p>")
    return lines


def _coupled(guard: Guardrails, trial: Trial) -> list[tuple[str, Row | Quadratic, int, int]]:
    """Of each declared rule that couples joints: its name, itself (one side of it, if it has two), violations of what
    was proposed and of what was sent. Rows of formulas are not among them: their monitors judge them."""
    own = len(guard.rows) - (0 if guard.temporal is None else len(guard.temporal.rows))
    declared: list[Row | Quadratic] = [*guard.rows[:own], *guard.quadratics]
    found: dict[str, tuple[str, Row | Quadratic, int, int]] = {}
    for rule in declared:
        before = broken(rule, trial.proposed, guard.rate_hz)
        after = broken(rule, trial.sent * trial.motion.units, guard.rate_hz)
        if rule.name in found:
            before, after = before + found[rule.name][2], after + found[rule.name][3]
        found[rule.name] = rule.name, rule, before, after
    return list(found.values())


def _index(guard: Guardrails, joint: str) -> int:
    if joint not in guard.joints:
        raise GuardrailError(f"{guard.where}: joint: found {joint!r}; expected one of {list(guard.joints)}")
    return guard.joints.index(joint)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m kizzasi_edge.guardrails.explore", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("file", type=Path, help="the guard file (*.guard.toml)")
    parser.add_argument("--joint", help="default: the first")
    parser.add_argument("--pair", nargs=2, metavar=("J1", "J2"), help="default: the first two")
    parser.add_argument("--seed", type=int, default=1, help="of the saboteur")
    parser.add_argument("--out", type=Path, default=Path("explore.html"))
    options = parser.parse_args(argv)
    try:
        pair = None if options.pair is None else (options.pair[0], options.pair[1])
        write_page(Guardrails.load(options.file), options.out, options.joint, pair, options.seed)
    except KizzasiError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{options.out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
