"""Truncated back-propagation through time: exact where nothing is cut, state carried where it is, bounded memory."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from kizzasi_edge.errors import ConfigError
from kizzasi_export import KINDS, StepModel, build_model
from kizzasi_export.chunks import Chunks, Schedule, carried
from kizzasi_export.config import TrainingSection, load_train_config
from kizzasi_export.datasets import Recording, SequenceDataset, Streams
from kizzasi_export.losses import head_loss, sequence_loss
from kizzasi_export.models import Normalizer
from kizzasi_export.tasks import load_task
from kizzasi_export.tasks.supervised import hold_out
from kizzasi_export.train import fit
from kizzasi_export.trainee import StreamTrainee

LAG = 40  # steps; longer than every chunk that has to bridge it


def _recording(steps: int, seed: int = 0) -> Recording:
    """Input 0 rings now and then; y is what rang last, at least `LAG` steps ago."""
    rng = np.random.default_rng(seed)
    x, y = np.zeros((steps, 2), np.float32), np.zeros((steps, 1), np.float32)
    level = 0.0
    for start in range(0, steps, LAG):
        y[start : start + LAG, 0] = level  # what rang at the beginning of the last one
        level = float(rng.choice([-1.0, 1.0]))
        x[start, 0], x[start, 1] = level, 1.0
    return Recording(x, y, None, f"seed {seed}")


def _model(kind: str = "mamba2", **sizes: int) -> StepModel:
    torch.manual_seed(0)
    given = {"hidden_dim": 16, "state_dim": 8, "num_layers": 1, **sizes}
    model = build_model(kind, input_dim=2, output_dim=1, **given)
    model.set_normalizer(Normalizer((0.0, 0.0), (0.2, 0.2), (0.0,), (1.0,)))
    return model


def _trainee(model: StepModel, recordings: list[Recording], tbptt: int, **changes: int) -> StreamTrainee:
    streams = Streams(tuple(recordings))
    return StreamTrainee(model, TrainingSection(tbptt=tbptt, **changes), head_loss(), streams, streams)


def _gradients(model: StepModel) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


# --- what a chunk is ---


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("seed", [None, 0])
def test_every_recording_is_played_once_in_order(processes: int, seed: int | None) -> None:
    lengths = [100, 3, 64, 65, 1, 200, 64, 17]
    counts = set()
    for epoch in range(3):
        seen: list[tuple[int, int]] = []
        for rank in range(processes):
            schedule = Schedule(lengths, 32, 2, rank, processes, seed)
            schedule.set_epoch(epoch)
            plan = list(schedule)
            counts.add(len(plan))
            assert len(plan) == len(schedule)
            for stream in zip(*plan, strict=True):
                played = [(i, first) for i, first in stream if first < lengths[i]]
                seen += played
                for (i, first), (following, next_first) in pairwise(played):  # without a gap, and from the start
                    assert (following, next_first) == (i, first + 32) if first + 32 < lengths[i] else next_first == 0
        assert sorted(seen) == sorted((i, first) for i, n in enumerate(lengths) for first in range(0, n, 32))
    assert len(counts) == 1  # all processes and epochs count alike, or the optimiser's schedule would end early
    assert len(plan) * 2 * processes <= 1.4 * sum(-(-n // 32) for n in lengths)  # balanced


def test_the_order_changes_with_the_epoch() -> None:
    schedule = Schedule([64] * 8, 32, 2, seed=0)
    orders = []
    for epoch in (0, 1, 0):
        schedule.set_epoch(epoch)
        orders.append(list(schedule))
    assert orders[0] == orders[2] != orders[1]


def test_what_lies_beyond_a_recording_weighs_nothing() -> None:
    weight = np.arange(1, 6, dtype=np.float32)
    short = Recording(np.arange(10.0, dtype=np.float32).reshape(5, 2), np.ones((5, 1), np.float32), weight, "short")
    chunks = Chunks([short, _recording(8)], 4)
    x, _, w, start = chunks[[(0, 4), (1, 0), (0, 8)]]
    assert x[0].tolist() == [[8.0, 9.0]] * 4
    assert w.tolist() == [[5.0, 0.0, 0.0, 0.0], [1.0] * 4, [0.0] * 4]
    assert start.tolist() == [False, True, False]
    assert Chunks([short], 1000).length == 5


def test_states_restart_per_stream() -> None:
    model = _model()
    x = torch.randn(3, 10, 2)
    _, state = model.scan(x, model.initial_state(3))
    initial = model.initial_state(3)
    mixed = carried(torch.tensor([True, False, True]), initial, state)
    for name, value in mixed.items():
        assert torch.equal(value[0], initial[name][0])
        assert torch.equal(value[1], state[name][1])
        assert not torch.equal(value[1], initial[name][1])


# --- against the whole sequence ---


def test_without_a_cut_it_is_full_back_propagation(kind: str) -> None:
    model = _model(kind)
    recordings = [_recording(96, seed) for seed in range(3)]
    x, y, w = (
        torch.from_numpy(np.stack(arrays))
        for arrays in ([r.x for r in recordings], [r.y for r in recordings], [np.ones(96, np.float32)] * 3)
    )
    whole = sequence_loss()(model, x, y, w)
    whole.backward()
    expected = _gradients(model)
    chunk = Chunks(recordings, 1000)[[(0, 0), (1, 0), (2, 0)]]
    loss, _ = _trainee(model, recordings, 1000).loss_of(chunk)
    loss.backward()
    found = _gradients(model)
    assert loss.item() == pytest.approx(whole.item(), rel=1e-5)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_chunks_see_what_the_whole_sequence_saw(kind: str) -> None:
    """The outputs of carried chunks are those of one scan; only gradients are cut."""
    model = _model(kind)
    recordings = [_recording(90, seed) for seed in range(2)]
    trainee = _trainee(model, recordings, 32)
    chunks = Chunks(recordings, 32)
    with torch.no_grad():
        losses = [trainee.loss_of(chunks[[(0, k), (1, k)]]) for k in (0, 32, 64)]
        total = sum(float(loss * weight.sum()) for loss, weight in losses) / (2 * 90)
        x, y = (torch.from_numpy(np.stack([getattr(r, name) for r in recordings])) for name in "xy")
        whole = float(sequence_loss()(model, x, y, torch.ones(2, 90)))
    assert total == pytest.approx(whole, rel=1e-4)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize("kind", KINDS)


# --- what it is for ---


def test_carried_state_knows_what_chunks_alone_cannot(tmp_path: Path) -> None:
    """A filter four times slower than a chunk is long: most of y was decided before the chunk began."""
    streams = Streams(tuple(_slow(256, seed) for seed in range(18)))
    fitted, held = hold_out(streams, 0.12, 0, 1)
    cfg = TrainingSection(tbptt=16, batch_size=8, epochs=10, learning_rate=1e-2, loss="mse", weight_decay=0.0)
    carried_on = fit(_model("s4d"), fitted, cfg, folder=tmp_path / "a", validation=held, progress=False)
    alone = cfg.model_copy(update={"tbptt": None})
    windows, held_windows = fitted.windows(16), held.windows(16)
    cut_off = fit(_model("s4d"), windows, alone, folder=tmp_path / "b", validation=held_windows, progress=False)
    assert cut_off.best_validation_loss > 0.5
    assert carried_on.best_validation_loss < 0.35


def test_memory_holds_one_chunk_however_long_the_recording() -> None:
    assert _peak(steps=1024, tbptt=32) <= 1.01 * _peak(steps=128, tbptt=32)
    assert _peak(steps=1024, tbptt=1024) > 6 * _peak(steps=128, tbptt=128)  # what it saves


def _slow(steps: int, seed: int) -> Recording:
    """y = a first-order low-pass of input 0 with a time constant of 64 steps, scaled to about 1."""
    x = np.random.default_rng(seed).standard_normal((steps, 2)).astype(np.float32)
    y, level = np.zeros((steps, 1), np.float32), 0.0
    for t in range(steps):
        level += (x[t, 0] - level) / 64.0
        y[t] = level * np.sqrt(2 * 64.0)
    return Recording(x, y, None, f"seed {seed}")


def _peak(steps: int, tbptt: int) -> int:
    """Most bytes that the graph held at any time of an epoch over recordings of `steps` steps."""
    recordings = [_recording(steps, seed) for seed in range(2)]
    trainee = _trainee(_model(), recordings, tbptt)
    chunks = Chunks(recordings, tbptt)
    with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
        Held.live = Held.peak = 0
        for slots in Schedule([steps] * 2, chunks.length, 2):
            loss, _ = trainee.loss_of(chunks[slots])
            loss.backward()
            del loss
    return Held.peak


class Held:
    """A tensor that the graph keeps, counted while it does."""

    live = 0
    peak = 0

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.bytes = tensor, tensor.nbytes
        Held.live += self.bytes
        Held.peak = max(Held.peak, Held.live)

    def __del__(self) -> None:
        Held.live -= self.bytes


# --- what cannot be ---


def test_windows_are_no_streams(tmp_path: Path) -> None:
    data = SequenceDataset(np.zeros((4, 8, 2)), np.zeros((4, 8, 1)))
    with pytest.raises(ConfigError, match=r"\[training\] tbptt: found 4, expected none"):
        fit(_model(), data, TrainingSection(tbptt=4), folder=tmp_path, progress=False)


def test_a_window_is_not_ignored(tmp_path: Path) -> None:
    (tmp_path / "train.toml").write_text(
        '[task]\nname = "supervised"\n[data]\nformat = "generated"\nsystem = "lorenz"\nwindow = 8\n'
        "[training]\ntbptt = 8\n[export]\nsample_rate_hz = 10\n"
    )
    config = load_train_config(tmp_path / "train.toml")
    with pytest.raises(ConfigError, match=r"\[data\] window: found 8, expected none: tbptt"):
        load_task(config)(config.data, config, resume=False, progress=False)


@pytest.mark.parametrize(
    ("lengths", "held"), [([100], [20]), ([50] * 10, [50, 50]), ([4, 100, 3], [20]), ([5, 6], [5])]
)
def test_hold_out_has_no_step_in_common(lengths: list[int], held: list[int]) -> None:
    streams = Streams(tuple(_recording(n, seed) for seed, n in enumerate(lengths)))
    window = 5
    fitted, validating = hold_out(streams, 0.2, 3, window)
    assert sorted(len(r) for r in validating) in (held, [6] if held == [5] else held)
    assert max(len(r) for r in fitted) >= window
    if len(lengths) > 3:
        assert fitted.steps + validating.steps == sum(lengths)
    assert not {id(r) for r in fitted} & {id(r) for r in validating}


def test_too_little_to_hold_out_is_said() -> None:
    with pytest.raises(ConfigError, match=r"sequences of 9 steps, expected at least window = 5 and as many again"):
        hold_out(Streams((_recording(9),)), 0.2, 0, 5)
