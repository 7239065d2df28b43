"""Training the arm: the environment obeys the guard, labels are what the stage needs, the shipped policy tracks."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from kizzasi_edge import Bundle, Guardrails, Predictor
from kizzasi_edge.demo.expert import HOME, JOINTS, Expert, random_pose, random_targets, reference_trajectory
from kizzasi_edge.demo.physics import ASSETS, ArmPhysics
from kizzasi_edge.errors import ConfigError
from kizzasi_export.config import TrainConfig, load_train_config
from kizzasi_export.models import ReferenceModel
from kizzasi_export.tasks import load_task
from kizzasi_export.tasks.arm import INPUTS, OUTPUTS, goal_loss, make_model
from kizzasi_export.tasks.arm_check import judge
from kizzasi_export.tasks.arm_data import Episodes, drive, labels, windows
from kizzasi_export.tasks.arm_env import ArmEnv

EXAMPLE = Path(__file__).parents[2] / "examples" / "arm" / "train.toml"
DT = 1 / 500


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def guard() -> Guardrails:
    return Guardrails.load(ASSETS / "arm.guard.toml")


def _env(guard: Guardrails, seed: int = 0, noise: float = 0.0, spread: float = 0.0) -> ArmEnv:
    return ArmEnv(guard, noise=noise, spread=spread, rng=np.random.default_rng(seed))


# --- the environment ---


def test_executed_setpoints_obey_the_guard(guard: Guardrails) -> None:
    env, rng = _env(guard), np.random.default_rng(1)
    env.reset(random_pose(rng, 8))
    raw = [np.rint(env.applied / 2.0**-21).astype(np.int64)] * 2
    some = 0
    for k in range(1500):
        if k % 75 == 0:
            far = HOME + rng.normal(0, 8.0, (8, 6))
        wild = far if k % 50 else far * 1e6
        some += env.advance(wild, rng.random(8) < 0.02).sum()
        raw.append(np.rint(env.applied / 2.0**-21).astype(np.int64))
    q = np.array(raw)
    lo, hi, w, h = (np.array([getattr(limit, key) for limit in guard.lattice]) for key in ("lo", "hi", "w", "h"))
    assert (q >= lo).all()
    assert (q <= hi).all()
    assert (np.abs(np.diff(q, axis=0)) <= w).all()
    assert (np.abs(np.diff(q, 2, axis=0)) <= h).all()
    assert some > 1000
    assert np.abs(np.diff(q, axis=0)).max() > 0.9 * w.max()  # and it moves


def test_clamps_are_reported_only_where_they_act(guard: Guardrails) -> None:
    env = _env(guard)
    env.reset(HOME[None])
    assert not env.advance(HOME[None]).any()
    jump = HOME.copy()
    jump[2] += 0.1
    assert env.advance(jump[None]).tolist() == [[False, False, True, False, False, False]]


def test_lost_commands_coast_then_brake(guard: Guardrails) -> None:
    env, law = _env(guard), Expert()
    q, v = np.tile(HOME, (2, 1)), np.zeros((2, 6))
    env.reset(q)
    for _ in range(400):
        q, v = law.step(q, v, HOME + 1.0, DT)
        env.advance(q)
    speed = env.velocity.copy()
    assert (speed > 0.5).all()
    for _ in range(3):
        env.advance(q, np.array([True, False]))
    assert np.array_equal(env.velocity[0], speed[0])
    for _ in range(200):
        env.advance(q, np.array([True, False]))
    assert np.abs(env.velocity[0]).max() == 0.0


def test_servo_model_is_the_mujoco_arm(guard: Guardrails) -> None:
    rng = np.random.default_rng(4)
    start, targets = random_pose(rng, 1), random_targets(rng, 1, 2000)
    env, arm = _env(guard), ArmPhysics(ASSETS / "arm.xml", noise=0.0, seed=0)
    env.reset(start)
    arm.reset(start[0])
    off, lag = [], []
    before = applied = start[0]
    for setpoint in reference_trajectory(start, targets)[0]:
        off.append(env.q[0] - arm.q)
        lag.append(setpoint - arm.q)
        for part in (0.5, 1.0):
            arm.step(before + part * (applied - before), 1000, True)
        before = applied
        env.advance(setpoint[None])
        applied = env.applied[0]
    assert np.sqrt(np.mean(np.square(off))) < 0.004
    assert np.sqrt(np.mean(np.square(lag))) > 0.02  # what the model explains


# --- the data ---


def test_goal_makes_the_reference_stage_take_the_expert_step(guard: Guardrails) -> None:
    stage = ReferenceModel(50.0, range(6))
    env, law = _env(guard), Expert()
    rng = np.random.default_rng(2)
    start, targets = random_pose(rng, 4), random_targets(rng, 4, 800)
    env.reset(start)
    for k in range(800):
        setpoint, _, goal = labels(law, env, targets[:, k], stage.alpha)
        state = {
            "reference_p": torch.from_numpy(env.applied),
            "reference_v": torch.from_numpy(env.velocity * DT),
            "started": torch.ones(4, 1),
        }
        y, _ = stage.step(torch.from_numpy(goal), torch.zeros(4, 12), state)
        assert np.abs(y.numpy() - setpoint).max() < 1e-12
        env.advance(setpoint)


def test_windows_are_symmetric_copies_of_the_episodes() -> None:
    rng = np.random.default_rng(3)
    ticks = 40
    ramp = np.arange(ticks)[None, :, None] * 1e-3
    tag = rng.uniform(0.1, 0.5, (5, 1, 6))  # tells (episode, joint) apart
    x = np.concatenate([HOME + tag + ramp, HOME - tag + ramp], axis=2).astype(np.float32)
    goal = (tag * (1 + ramp)).astype(np.float32)
    data = windows(Episodes(x, goal), 200, 16, 6, rng)
    assert data.x.shape == (200, 16, 12)
    measured, target = data.x[..., :6] - HOME, data.x[..., 6:] - HOME
    sign = np.sign(data.y[:, :1])
    tags = (sign * (measured - target) / 2)[:, 0]
    offset = np.rint((sign * measured - tags[:, None])[:, 0] * 1e3).astype(int)
    assert np.isin(np.round(tags, 4), np.round(tag, 4)).all()
    assert np.allclose(sign * measured, tags[:, None] + (offset[:, None] + np.arange(16)[:, None]) * 1e-3, atol=1e-5)
    expected = tags[:, None] * (1 + (offset[:, None] + np.arange(16)[:, None]) * 1e-3)
    assert np.allclose(sign * data.y, expected, atol=1e-5)
    assert {-1.0, 1.0} == set(np.unique(sign))
    begin = data.weight[:, 0] > 0
    assert 5 < begin.sum() < 60
    assert (offset[begin] == 0).all()
    assert (data.weight[~begin, :6] == 0).all()
    assert (data.weight[~begin, 6:] == 1).all()
    together = [len(set(np.round(row, 4)) & set(np.round(tag[e, 0], 4))) == 6 for row in tags for e in range(5)]
    assert 60 < sum(together) < 140


def test_driving_by_the_policy_starts_where_the_arm_is(guard: Guardrails) -> None:
    config = _config()
    model = make_model(config, DT)
    rng = np.random.default_rng(0)
    arms = drive(
        _env(guard), model, episodes=3, ticks=60, expert_share=0.0, rng=rng, expert=Expert(), on_tick=lambda: None
    )
    assert np.isfinite(arms.x).all()
    assert np.abs(arms.x[:, 10, :6] - arms.x[:, 0, :6]).max() < 0.02  # no jump


# --- the task ---


def _config(**changes: object) -> TrainConfig:
    config = load_train_config(EXAMPLE)
    data = {**config.data, "expert_share": [1.0, 0.5], "episodes": 2, "episode_s": 0.6, "windows": 80, "check_s": 1.0}
    model = config.model.model_copy(update={"hidden_dim": 16, "num_layers": 1})
    return config.model_copy(update={"data": {**data, **changes}, "model": model})


def _run(tmp_path: Path, config: TrainConfig):  # type: ignore[no-untyped-def]
    config = config.model_copy(update={"output": config.output.model_copy(update={"folder": str(tmp_path)})})
    return load_task(config)(config.data, config, resume=False, progress=False)


def test_a_small_training_runs_learns_and_repeats(tmp_path: Path) -> None:
    config = _config(windows=640)
    first = _run(tmp_path / "a", config)
    again = _run(tmp_path / "b", config)
    for name, weight in first.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name]), name
    assert len(first.fit.history) == 2
    assert first.fit.history[-1][1] < 0.9 * 0.5  # goals of about 0.7 rad/s: better than giving none
    assert first.export.input_names == INPUTS
    assert first.export.output_names == OUTPUTS
    assert first.data["tracking"]["rmse_expert"] < 0.06


def test_loss_weighs_ticks_and_is_in_units_of_the_output() -> None:
    model = make_model(_config(), DT)
    x = torch.from_numpy(np.tile(np.r_[HOME, HOME], (1, 4, 1))).float()
    with torch.no_grad():
        y = model.goal(x)
        off = y.clone()
        off[:, 2] += 0.5 * DT
        weight = torch.tensor([[1.0, 1.0, 1.0, 1.0]])
        assert float(goal_loss(model, x, off, weight)) == pytest.approx(0.25 / 4, rel=1e-3)
        weight[0, 2] = 0.0
        assert float(goal_loss(model, x, off, weight)) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"expert_share": [0.5]}, "expert_share"),
        ({"expert_share": []}, "expert_share"),
        ({"window": 4000}, "window"),
        ({"burn_in": 128}, "window"),
        ({"servo_spread": 1.0}, "servo_spread"),
        ({"episode": 3}, "episode"),
    ],
)
def test_bad_data_sections_are_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"train\.toml.*\[data\].*{message}"):
        _run(tmp_path, _config(**changes))


def test_a_model_without_reference_stage_is_refused(tmp_path: Path) -> None:
    config = _config()
    config = config.model_copy(
        update={"model": config.model.model_copy(update={"reference_tau": None, "anchor": None})}
    )
    with pytest.raises(ConfigError, match="reference_tau"):
        _run(tmp_path, config)


# --- what is shipped ---


def test_shipped_policy_comes_from_the_shipped_config() -> None:
    manifest = Bundle.open(ASSETS / "arm.onnx").manifest
    assert [signal.name for signal in manifest.inputs] == INPUTS
    assert [signal.name for signal in manifest.outputs] == OUTPUTS
    assert manifest.sample_rate_hz == 500
    assert manifest.training["task"] == "arm"
    assert manifest.training["config_sha256"] == hashlib.sha256(EXAMPLE.read_bytes()).hexdigest()
    assert manifest.limits_trained_under["expert"] == dataclasses.asdict(Expert())
    assert manifest.parity.relative_error <= 1e-5
    assert manifest.parity.steps >= 1000


@pytest.mark.parametrize("seed", [101, 102])
def test_shipped_policy_tracks_unseen_targets(seed: int) -> None:
    policy = Predictor(ASSETS / "arm.onnx")
    found = judge(
        lambda measured, target: policy.step(np.concatenate([measured, target]).astype(np.float32)),
        seconds=15.0,
        noise=1e-3,
        seed=seed,
    )
    assert found.ratio <= 1.5, found.describe()
    assert found.intervened < 0.05, found.describe()


def test_untrained_policy_is_another_model_of_the_same_shape() -> None:
    trained, untrained = Bundle.open(ASSETS / "arm.onnx").manifest, Bundle.open(ASSETS / "untrained.onnx").manifest
    assert untrained.inputs == trained.inputs
    assert untrained.outputs == trained.outputs
    assert untrained.states == trained.states
    assert untrained.core_sha256 != trained.core_sha256
    assert len(JOINTS) == untrained.output_dim
