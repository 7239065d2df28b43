"""Constraint-aware training: the rules against the C guard, the penalties, and the guard's implicit gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kizzasi_edge.errors import ConfigError, GuardrailError
from kizzasi_edge.guardrails import Guardrails
from kizzasi_export import build_model
from kizzasi_export.constraints import (
    ConstraintAwareLoss,
    GuardProjection,
    GuardRules,
    LagrangianRelaxation,
    ProjectionLoss,
)
from kizzasi_export.constraints.loss import PenalisedLoss, constrained_loss
from kizzasi_export.constraints.section import (
    ConstraintsSection,
    LagrangianSection,
    PenaltySection,
    ProjectionSection,
)
from kizzasi_export.losses import head_loss

OUTPUTS = ["b/position", "a/position"]


def make_guard(miss_budget: int = 2) -> Guardrails:
    return (
        Guardrails.builder(rate_hz=100, miss_budget=miss_budget, velocity_scale=1.0)
        .joint("a", position=(-1.0, 1.0), velocity=2.0, acceleration=20.0)
        .joint("b", position=(-0.5, 2.0), velocity=1.0, acceleration=8.0)
        .constraint("velocity", "slow_b", "b", max=0.8)
        .build()
    )


def walk(seed: int, steps: int, speed: float) -> np.ndarray:
    """A random walk [steps, 2] in the guard's joint order, from (0.2, 0.3) on."""
    rng = np.random.default_rng(seed)
    return np.array([0.2, 0.3]) + np.cumsum(rng.normal(0, speed, (steps, 2)), 0)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), speed=st.sampled_from([1e-4, 3e-3, 0.02, 0.2]))
def test_what_the_guard_sends_breaks_no_rule(seed: int, speed: float) -> None:
    """The rules' limits are those of the C guard: after it, every g ≤ rounding; before it, both agree on breaches."""
    guard = make_guard()
    rules = GuardRules(guard, ["a", "b"])
    u = walk(seed, 80, speed)
    guard.reset(u[0])
    sent = np.array([guard.step(row)[0] for row in u], np.float64)
    for name, g in rules(torch.from_numpy(sent)[None]).items():
        assert float(g.max()) <= 1e-6, name


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), speed=st.sampled_from([1e-5, 1e-4, 3e-3, 0.02]))
def test_where_no_rule_is_broken_the_guard_changes_nothing(seed: int, speed: float) -> None:
    guard = make_guard()
    u = torch.from_numpy(walk(seed, 60, speed))[None]
    worst = max(float(g.max()) for g in GuardRules(guard, ["a", "b"])(u).values())
    _, changed = GuardProjection(guard, ["a", "b"])(u[:, 2:], u[:, 1], u[:, 0])
    if worst < -1e-3:
        assert not changed.any()
    if worst > 1e-3:
        assert changed.any()


def test_rules_carry_the_verdicts_names_and_the_outputs_order() -> None:
    guard = make_guard()
    rules = GuardRules(guard, OUTPUTS)
    assert rules.names == ("position", "velocity", "slow_b", "acceleration")
    y = torch.zeros(1, 4, 2, dtype=torch.float64)
    y[..., 1] = torch.tensor([0.0, 0.1, 0.2, 0.3])  # joint a at 10 rad/s; b at rest
    found = rules(y)
    assert float(found["velocity"].max()) == pytest.approx(10 / 2 - 1)
    assert float(found["slow_b"].max()) == -1
    with pytest.raises(GuardrailError, match="differ"):
        GuardRules(guard, ["a", "c"])
    with pytest.raises(GuardrailError, match="expected at least 3"):
        rules(y[:, :2])


@pytest.mark.parametrize("kind", ["hinge", "squared", "log_barrier"])
def test_penalties(kind: str) -> None:
    loss = ConstraintAwareLoss(kind, weights={"b": 3.0}, sharpness=10.0)  # type: ignore[arg-type]
    g = torch.linspace(-1, 1, 2001, dtype=torch.float64, requires_grad=True)
    values = loss._penalty(g)
    slope = torch.autograd.grad(values.sum(), g)[0]
    assert bool((slope >= 0).all())  # never rewards a violation
    assert bool((values.detach().diff().abs() <= 0.011).all())  # continuous, also where the barrier is extended
    if kind == "log_barrier":
        inside = g.detach() < -0.02
        torch.testing.assert_close(values.detach()[inside], -torch.log(-g.detach()[inside]) / 10)
        assert float(slope[0]) > 0  # acts before the limit is reached
    else:
        assert float(values.detach()[g <= 0].abs().max()) == 0
    one = torch.full((4,), 0.5)
    alone = float(loss({"a": one, "b": -one}))
    assert float(loss({"a": -one, "b": one})) > alone  # the weight of rule b
    with pytest.raises(ConfigError, match="weights: found b, expected rules among a"):
        loss({"a": one})


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"kind": "cubic"}, "penalty: found 'cubic'"),
        ({"weight": -1.0}, "weight: found -1"),
        ({"weights": {"position": math.nan}}, "weight position: found nan"),
        ({"sharpness": 0.0}, "sharpness: found 0"),
    ],
)
def test_bad_penalties_are_refused(arguments: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        ConstraintAwareLoss(**arguments)  # type: ignore[arg-type]


def test_dual_ascent_meets_the_constraint_and_keeps_its_multipliers_bounded() -> None:
    """min (p − 3)² s.t. p ≤ 1: with tolerance 0.05 the primal goes to 1.05, the multiplier to 2·(3 − 1.05)."""
    p = torch.nn.Parameter(torch.tensor([0.0]))
    dual = LagrangianRelaxation(("limit",), rate=0.05, tolerance=0.05, largest=50.0).train()
    optimiser = torch.optim.SGD([p], lr=0.02)
    tail = []
    for i in range(4000):
        optimiser.zero_grad()
        ((p - 3).square().sum() + dual({"limit": p - 1})).backward()
        optimiser.step()
        if i >= 3000:
            tail.append(float(p.detach()))
    assert np.mean(tail) == pytest.approx(1.05, abs=0.01)
    assert float(dual.multipliers[0]) == pytest.approx(3.9, abs=0.05)
    stubborn = LagrangianRelaxation(("never",), rate=10.0, largest=7.0)
    for _ in range(20):
        stubborn({"never": torch.ones(1, requires_grad=True)})
    assert float(stubborn.multipliers[0]) == 7.0
    before = stubborn.multipliers.clone()
    assert float(stubborn.eval()({"never": torch.full((1,), 0.5)})) == 0.5  # the same measure whatever the multipliers
    assert torch.equal(stubborn.multipliers, before)  # validation moves nothing
    with pytest.raises(ConfigError, match="rate: found 0"):
        LagrangianRelaxation(("a",), rate=0.0)


def test_projection_is_the_guard_itself() -> None:
    """The layer's forward equals Guardrails.step, command for command, bit for bit."""
    guard = make_guard()
    u = walk(3, 300, 0.02)
    start = np.array([0.2, 0.3])
    guard.reset(start)
    expected = np.array([guard.step(row)[0] for row in u])
    swapped = torch.from_numpy(u[:, ::-1].copy()).float()[None]  # outputs are b, a
    begin = torch.from_numpy(start[::-1].copy())[None]
    found, changed = GuardProjection(make_guard(), OUTPUTS)(swapped, begin, begin)
    assert np.array_equal(found[0].numpy()[:, ::-1], expected)
    assert 0.5 < float(changed.double().mean()) <= 1.0


def active_sets(guard: Guardrails, u: torch.Tensor, start: torch.Tensor, before: torch.Tensor) -> bytes:
    _, changed = GuardProjection(guard, ["a", "b"])(u, start, before)
    return changed.numpy().tobytes()


@pytest.mark.parametrize("miss_budget", [0, 3])
@pytest.mark.parametrize(
    ("speed", "start", "before"),
    [
        (0.002, [0.2, 0.3], [0.2, 0.3]),  # mostly inside
        (0.05, [0.2, 0.3], [0.2, 0.3]),  # acceleration and velocity bounds
        (0.6, [0.9, 1.9], [0.893, 1.896]),  # the viable set at the end of the range
        (0.3, [1.3, -0.8], [1.3, -0.8]),  # outside: recovery
    ],
)
def test_gradcheck(miss_budget: int, speed: float, start: list[float], before: list[float]) -> None:
    """The closed-form derivative against finite differences, wherever no active set changes within the difference."""
    guard = make_guard(miss_budget)
    project = GuardProjection(guard, ["a", "b"])
    at, ago = torch.tensor([start], dtype=torch.float64), torch.tensor([before], dtype=torch.float64)
    eps, checked, bound = 4e-4, 0, 0
    for seed in range(25):
        rng = np.random.default_rng(seed)
        u = torch.from_numpy(np.array(start) + np.cumsum(rng.normal(0, speed, (6, 2)), 0))[None].requires_grad_()
        q, changed = project(u, at, ago)
        jacobian = torch.autograd.functional.jacobian(lambda v: project(v, at, ago)[0], u)  # type: ignore[no-untyped-call]
        for t in range(6):
            for j in range(2):
                shift = torch.zeros_like(u)
                shift[0, t, j] = eps
                (up, c1), (down, c2) = project(u + shift, at, ago), project(u - shift, at, ago)
                left, right = (q - down) / eps, (up - q) / eps
                # A kink within ±eps shows as different one-sided slopes: there is no derivative to compare with.
                if not (torch.equal(c1, changed) and torch.equal(c2, changed)):
                    continue
                if float((left - right).detach().abs().max()) > 2e-2:
                    continue
                torch.testing.assert_close(jacobian[..., 0, t, j], (up - down) / (2 * eps), atol=1e-2, rtol=1e-2)
                checked += 1
                bound += int(changed[0, t])
    assert checked > 100
    if speed > 0.01:
        assert bound > 20


@pytest.mark.parametrize("speed", [1e-4, 0.6])
def test_torch_gradcheck(speed: float) -> None:
    """torch's own check, on a walk all inside and on one all against its bounds (the lattice is finer than its eps)."""
    guard = make_guard()
    u = torch.from_numpy(walk(1, 8, speed))[None].requires_grad_()
    begin = torch.tensor([[0.2, 0.3]], dtype=torch.float64)
    project = GuardProjection(guard, ["a", "b"])
    _, changed = project(u, begin, begin)
    assert bool(changed.any()) == (speed > 0.01)
    check = torch.autograd.gradcheck  # type: ignore[attr-defined]
    assert check(lambda v: project(v, begin, begin)[0], (u,), eps=1e-4, atol=5e-3, rtol=5e-3)


def test_the_recursion_carries_gradients_back_in_time() -> None:
    """A proposal inside moves the later commands that stand on it through an active acceleration bound: by 2, 3, …"""
    guard = make_guard()
    u = torch.tensor([[[0.2005, 0.3], [1.0, 0.3], [1.0, 0.3]]], dtype=torch.float64, requires_grad=True)
    begin = torch.tensor([[0.2, 0.3]], dtype=torch.float64)
    q, changed = GuardProjection(guard, ["a", "b"])(u, begin, begin)
    assert changed.tolist() == [[False, True, True]]
    grad = [torch.autograd.grad(q[0, k, 0], u, retain_graph=True)[0][0, 0, 0].item() for k in range(3)]
    assert grad == [1.0, 2.0, 3.0]


SECTIONS = [
    PenaltySection(method="penalty", guard="g", penalty="log_barrier"),
    LagrangianSection(method="lagrangian", guard="g"),
    ProjectionSection(method="projection", guard="g"),
]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.method)
def test_steps_that_weigh_nothing_break_no_rule(section: ConstraintsSection) -> None:
    """What a chunk has beyond its recording's end, or burn-in: only the guard's history may reach into it."""
    torch.manual_seed(0)
    model = build_model("mamba2", input_dim=2, output_dim=2, hidden_dim=8, num_layers=1)
    y = torch.from_numpy(np.stack([walk(1, 12, 0.05), walk(2, 12, 0.05)])[..., ::-1].copy()).float()
    weight = torch.ones(2, 12)
    weight[:, 8:] = 0

    def value(proposed: torch.Tensor, weight: torch.Tensor = weight) -> float:
        loss = constrained_loss(section, head_loss("mse"), make_guard(), OUTPUTS)
        if isinstance(loss, PenalisedLoss) and isinstance(loss.penalty, LagrangianRelaxation):
            loss.penalty.multipliers.fill_(1.0)
        return float(loss(model, {"y": proposed}, y, weight))

    proposed = y + 0.3
    otherwise = proposed.clone()
    otherwise[:, 8:] += 5.0
    assert value(otherwise) == value(proposed) > 0
    assert value(proposed, torch.ones(2, 12)) != value(proposed)
    assert value(otherwise, torch.zeros(2, 12)) == 0  # an idle stream
    with pytest.raises(GuardrailError, match="found sequences of 2 steps, expected at least 3"):
        constrained_loss(section, head_loss("mse"), make_guard(), OUTPUTS)(
            model, {"y": proposed[:, :2]}, y[:, :2], weight[:, :2]
        )


def test_without_the_distance_term_a_clamped_proposal_would_be_stuck() -> None:
    guard = make_guard()
    project = GuardProjection(guard, ["a", "b"])
    begin = torch.tensor([[0.2, 0.3]], dtype=torch.float64)
    u = torch.full((1, 3, 2), 5.0, dtype=torch.float64, requires_grad=True)
    q, _ = project(u, begin, begin)
    assert float(torch.autograd.grad(q.sum(), u)[0].abs().max()) == 0
    scale = torch.ones(2, dtype=torch.float64)
    loss = ProjectionLoss(project)(lambda admitted: admitted.square().mean(), u, begin, begin, scale)
    slope = torch.autograd.grad(loss, u)[0]
    assert float(slope.min()) > 0  # downhill is back towards the admissible set
    with pytest.raises(ConfigError, match="distance: found 0"):
        ProjectionLoss(project, distance=0.0)
