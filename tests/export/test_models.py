"""Models: forward ≡ repeated step, the reference's parameter names, and the output reference model."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kizzasi_export import SequenceModel, StepModel, build_model
from kizzasi_export.models import Normalizer
from kizzasi_export.models.reference import ReferenceModel


def _steps(model: StepModel, x: torch.Tensor) -> torch.Tensor:
    state, ys = model.initial_state(x.shape[0]), []
    for t in range(x.shape[1]):
        y, state = model.step(x[:, t], state)
        ys.append(y)
    return torch.stack(ys, 1)


@pytest.mark.parametrize(("batch", "length"), [(1, 1), (3, 65), (2, 2048)])
@pytest.mark.parametrize("which", ["small", "smooth"])
@torch.no_grad()
def test_forward_equals_repeated_step(which: str, batch: int, length: int, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(which)
    x = torch.randn(batch, length, 4) * 2
    y = model(x)
    assert y.std() > 1e-3 or length == 1
    assert (y - _steps(model, x)).abs().max() <= 1e-4


def test_step_leaves_the_old_state_alone(smooth: StepModel) -> None:
    state = smooth.initial_state(2)
    _, state = smooth.step(torch.randn(2, 4), state)
    copies = {name: value.clone() for name, value in state.items()}
    smooth.step(torch.randn(2, 4), state)
    for name, value in state.items():
        assert torch.equal(value, copies[name])


def test_parameter_names_and_shapes_are_the_reference_implementations() -> None:
    model = build_model("mamba2", input_dim=3, output_dim=2, hidden_dim=64, state_dim=16, num_layers=1)
    shapes = {name: tuple(p.shape) for name, p in model.network.named_parameters()}
    inner, n, heads = 128, 16, 2  # head_dim 64
    assert shapes == {
        "input_projection.weight": (64, 3),
        "input_projection.bias": (64,),
        "backbone.layers.0.norm.weight": (64,),
        "backbone.layers.0.mixer.in_proj.weight": (2 * inner + 2 * n + heads, 64),
        "backbone.layers.0.mixer.conv1d.weight": (inner + 2 * n, 1, 4),
        "backbone.layers.0.mixer.conv1d.bias": (inner + 2 * n,),
        "backbone.layers.0.mixer.dt_bias": (heads,),
        "backbone.layers.0.mixer.A_log": (heads,),
        "backbone.layers.0.mixer.D": (heads,),
        "backbone.layers.0.mixer.norm.weight": (inner,),
        "backbone.layers.0.mixer.out_proj.weight": (64, inner),
        "backbone.norm_f.weight": (64,),
        "output_projection.weight": (2, 64),
        "output_projection.bias": (2,),
    }
    assert isinstance(model, SequenceModel)


@pytest.mark.parametrize(("hidden", "head"), [(256, 64), (64, 64), (24, 16), (5, 2)])
def test_head_dim_divides_the_width(hidden: int, head: int) -> None:
    model = build_model("mamba2", input_dim=1, output_dim=1, hidden_dim=hidden, state_dim=2, num_layers=1)
    assert model.network.cfg.head == head


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"kind": "lstm"}, "unknown model kind 'lstm'"),
        ({"hidden_dim": 0}, "hidden_dim = 0"),
        ({"head_dim": 7}, "head_dim = 7"),
        ({"kernel": 3}, "unknown size kernel"),
        ({"anchor": [0, 1]}, "without reference_tau"),
        ({"reference_tau": 5.0}, "one anchor per output"),
        ({"reference_tau": 5.0, "anchor": [0, 4]}, r"anchor\[1\] = 4"),
        ({"reference_tau": 0.0, "anchor": [0, 1]}, "reference_tau = 0"),
    ],
)
def test_impossible_models_are_refused(change: dict[str, object], match: str) -> None:
    arguments: dict[str, object] = {"kind": "mamba2", "input_dim": 4, "output_dim": 2, "hidden_dim": 16, **change}
    with pytest.raises(ValueError, match=match):
        build_model(**arguments)  # type: ignore[arg-type]


@settings(max_examples=30, deadline=None)
@given(tau=st.floats(0.3, 400.0), length=st.integers(1, 300), seed=st.integers(0, 99))
def test_reference_forward_equals_step(tau: float, length: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    reference = ReferenceModel(tau, [1, 0])
    goal, x = torch.randn(2, length, 2, generator=g) * 0.03, torch.randn(2, length, 3, generator=g)
    state, ys = reference.initial_state(2), []
    for t in range(length):
        y, state = reference.step(goal[:, t], x[:, t], state)
        ys.append(y)
    torch.testing.assert_close(reference(goal, x), torch.stack(ys, 1), atol=1e-5, rtol=0)


def test_reference_starts_at_the_anchor_and_servoes_velocity() -> None:
    tau, steps = 25.0, 400
    reference = ReferenceModel(tau, [0])
    x = torch.full((1, steps, 1), 0.7)
    y = reference(torch.full((1, steps, 1), 0.01), x)[0, :, 0].double().numpy()
    assert abs(y[0] - 0.7) < 0.01 / tau + 1e-6  # at rest where the robot is, moving off smoothly
    velocity = np.diff(y)
    k = np.arange(2, steps + 1)
    assert np.abs(velocity - 0.01 * (1 - np.exp(-k / tau))).max() < 1e-6  # the servo's step response
    # A jump of the goal reaches the command as a second difference of α only.
    assert np.abs(np.diff(y, 2)).max() <= 0.01 * (1 - math.exp(-1 / tau)) + 1e-6


@torch.no_grad()
def test_reference_survives_long_float32_runs() -> None:
    """In the loop: the goal comes from where the reference is, as a policy's does through the robot."""
    reference = ReferenceModel(50.0, [0])
    state, x = reference.initial_state(1), torch.full((1, 1), 3.0)
    worst = 0.0
    previous: list[float] = []
    for k in range(30_000):
        target = 3.0 + math.sin(k / 500)
        at = previous[-1] if previous else 3.0
        y, state = reference.step(torch.full((1, 1), 0.005 * (target - at)), x, state)
        previous = [*previous[-2:], float(y)]
        if k > 3000:
            worst = max(worst, abs(previous[2] - 2 * previous[1] + previous[0]))
            assert abs(previous[-1] - target) < 0.5
    assert worst < 1e-5  # 50 µrad would break the arm's acceleration limit; the true one is 4 µrad


def test_normalizer_fit_and_checks() -> None:
    x = np.random.default_rng(0).normal(3.0, 2.0, (50, 40, 2))
    x[..., 1] = 7.0  # constant
    fitted = Normalizer.fit(x, x)
    assert fitted.input_mean == pytest.approx((3.0, 7.0), abs=0.2)
    assert fitted.input_std[1] == 1.0
    with pytest.raises(ValueError, match=r"output_std\[0\] = 0"):
        Normalizer((0.0,), (1.0,), (0.0,), (0.0,))
    with pytest.raises(ValueError, match=r"input_mean\[0\] = nan"):
        Normalizer((math.nan,), (1.0,), (0.0,), (1.0,))
    model = build_model("mamba2", input_dim=2, output_dim=1, hidden_dim=8, state_dim=2, num_layers=1)
    with pytest.raises(ValueError, match="output_mean has 2 values, the model has 1"):
        model.set_normalizer(fitted)


@torch.no_grad()
def test_normaliser_is_inside(small: StepModel) -> None:
    plain = build_model(**small.config)
    plain.network.load_state_dict(small.network.state_dict())
    x = torch.randn(1, 9, 4)
    raw = x * small.input_std + small.input_mean
    torch.testing.assert_close(small(raw), plain(x) * small.output_std + small.output_mean, atol=1e-5, rtol=1e-5)
