"""RWKV-7 against the reference package and against the paper's equations, its names, its start, and its graphs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from kizzasi_export import StepModel, build_model, export_step, parity
from kizzasi_export.graph import Graph
from kizzasi_export.models.rwkv7 import RWKV7, RWKV7Config, RWKV7TimeMix

Array = NDArray[np.float64]
NAMES: dict[str, Any] = {"sample_rate_hz": 100.0, "input_names": list("abc"), "output_names": list("de")}


def network(seed: int = 0, **changes: Any) -> RWKV7:
    """A network whose every parameter has been moved well away from its initial value."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"input_dim": 3, "output_dim": 2, "hidden_dim": 32, "head_dim": 16, "num_layers": 3}
    net = RWKV7(RWKV7Config(**{**sizes, **changes})).eval()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.3 * torch.randn_like(p) * (p.abs().mean() + 0.2))
    return net


def relative(found: torch.Tensor | Array, expected: torch.Tensor | Array) -> float:
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return float(np.abs(found - expected).max() / expected.std())


# --- the paper's equations, one step at a time, in float64 ------------------------------------------------------------


def literal(net: RWKV7, x: Array) -> Array:
    """x [T, input_dim] → [T, output_dim], written from Peng et al. 2025, §4 and appendix; no code shared with ours."""
    weights = {name: p.detach().double().numpy() for name, p in net.state_dict().items()}
    H, N = weights["blocks.0.att.r_k"].shape
    C, layers = H * N, net.cfg.num_layers

    def sigmoid(z: Array) -> Array:
        return 1 / (1 + np.exp(-z))

    def norm(z: Array, name: str) -> Array:
        z = (z - z.mean()) / np.sqrt(z.var() + 1e-5)
        return z * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    att_last, ffn_last = np.zeros((layers, C)), np.zeros((layers, C))
    S = np.zeros((layers, H, N, N))
    ys = []
    for x_t in x:
        h = norm(weights["input_projection.weight"] @ x_t + weights["input_projection.bias"], "blocks.0.ln0")
        v_first = np.zeros(C)
        for i in range(layers):
            p = {name: weights[name] for name in weights if name.startswith(f"blocks.{i}.")}
            p = {name.removeprefix(f"blocks.{i}.att."): np.squeeze(value) for name, value in p.items()}
            u = norm(h, f"blocks.{i}.ln1")
            mixed = {c: u * (1 - p[f"x_{c}"]) + att_last[i] * p[f"x_{c}"] for c in "rwkvag"}
            att_last[i] = u
            r, k, v = (p[f"{n}.weight"] @ mixed[n[0]] for n in ("receptance", "key", "value"))
            w = np.exp(-np.exp(-0.5) * sigmoid(p["w0"] + np.tanh(mixed["w"] @ p["w1"]) @ p["w2"]))
            a = sigmoid(p["a0"] + (mixed["a"] @ p["a1"]) @ p["a2"])
            g = sigmoid(mixed["g"] @ p["g1"]) @ p["g2"]
            if i == 0:
                v_first = v
            else:
                share = sigmoid(p["v0"] + (mixed["v"] @ p["v1"]) @ p["v2"])
                v = v * (1 - share) + v_first * share
            kappa = k * p["k_k"]
            k = k * ((1 - p["k_a"]) + a * p["k_a"])
            out = np.zeros(C)
            for head in range(H):
                s = slice(head * N, (head + 1) * N)
                hat = kappa[s] / np.linalg.norm(kappa[s])
                transition = np.diag(w[s]) - np.outer(hat, a[s] * hat)
                S[i, head] = S[i, head] @ transition + np.outer(v[s], k[s])
                read = S[i, head] @ r[s]
                read = (read - read.mean()) / np.sqrt(read.var() + 64e-5)
                read = read * p["ln_x.weight"][s] + p["ln_x.bias"][s]
                out[s] = read + np.sum(r[s] * p["r_k"].reshape(H, N)[head] * k[s]) * v[s]
            h = h + p["output.weight"] @ (out * g)
            u = norm(h, f"blocks.{i}.ln2")
            share = weights[f"blocks.{i}.ffn.x_k"].squeeze()
            inner = weights[f"blocks.{i}.ffn.key.weight"] @ (u * (1 - share) + ffn_last[i] * share)
            ffn_last[i] = u
            h = h + weights[f"blocks.{i}.ffn.value.weight"] @ np.maximum(inner, 0) ** 2
        ys.append(weights["output_projection.weight"] @ norm(h, "ln_out") + weights["output_projection.bias"])
    return np.array(ys)


@torch.no_grad()
def test_forward_is_the_paper() -> None:
    net = network()
    x = torch.randn(150, 3)
    expected = literal(net, x.double().numpy())
    assert relative(net(x[None])[0], expected) <= 1e-4
    assert relative(net.double()(x[None].double())[0], expected) <= 1e-10


# --- the reference package --------------------------------------------------------------------------------------------

REFERENCE = """
import sys, torch
torch.set_num_threads(1)
from rwkv.model import RWKV
path = sys.argv[1]
model = RWKV(path + "/weights", "cpu fp32")
tokens = torch.load(path + "/tokens.pt").tolist()
whole, state = model.forward(tokens[:40], None, full_output=True)
rows = [whole]
for token in tokens[40:]:
    y, state = model.forward([token], state)
    rows.append(y[None])
torch.save({"y": torch.cat(rows), "state": state}, path + "/found.pt")
"""
"""Its own process: the package chooses between its versions when it is imported."""


@pytest.mark.parametrize("head_dim", [16, 64])
@torch.no_grad()
def test_forward_and_states_are_those_of_the_rwkv_package(head_dim: int, tmp_path: Path) -> None:
    pytest.importorskip("rwkv")
    vocab, width = 11, 64
    net = network(seed=1, input_dim=vocab, output_dim=vocab, hidden_dim=width, head_dim=head_dim)
    net.input_projection.bias.zero_()  # on one-hot inputs it then is an embedding
    net.output_projection.bias.zero_()
    weights = {name: p.clone() for name, p in net.state_dict().items() if "projection" not in name}
    weights["emb.weight"] = net.input_projection.weight.T.contiguous()
    weights["head.weight"] = net.output_projection.weight.clone()
    torch.save(weights, tmp_path / "weights.pth")
    tokens = torch.randint(vocab, (60,), generator=torch.Generator().manual_seed(0))
    torch.save(tokens, tmp_path / "tokens.pt")
    flags = {"RWKV_V7_ON": "1", "RWKV_CUDA_ON": "0", "RWKV_JIT_ON": "0", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", REFERENCE, str(tmp_path)],
        env={**os.environ, **flags}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = torch.load(tmp_path / "found.pt")
    y, state = net.scan(F.one_hot(tokens, vocab).float()[None], net.initial_state(1))
    assert relative(y[0], expected["y"]) <= 1e-4
    for i in range(net.cfg.num_layers):
        for name, value in zip(("att_shift", "wkv", "ffn_shift"), expected["state"][3 * i : 3 * i + 3], strict=True):
            assert relative(state[f"{name}{i}"][0], value) <= 1e-4, (name, i)


def test_names_and_shapes_are_the_references() -> None:
    net = network(hidden_dim=48, num_layers=2, decay_rank=9, rate_rank=10, value_rank=11, gate_rank=12, ffn_dim=100)
    row = (1, 1, 48)
    norm = {"weight": (48,), "bias": (48,)}
    att: dict[str, tuple[int, ...]] = {f"x_{c}": row for c in "rwkvag"} | {"k_k": row, "k_a": row, "r_k": (3, 16)}
    for letter, rank in {"w": 9, "a": 10, "v": 11, "g": 12}.items():
        att |= {f"{letter}0": row, f"{letter}1": (48, rank), f"{letter}2": (rank, 48)}
    del att["g0"]
    att |= {f"{name}.weight": (48, 48) for name in ("receptance", "key", "value", "output")}
    ffn = {"x_k": row, "key.weight": (100, 48), "value.weight": (48, 100)}
    expected: dict[str, tuple[int, ...]] = {}
    for i in range(2):
        parts = {"ln1": norm, "ln2": norm, "att.ln_x": norm, "att": att, "ffn": ffn} | ({"ln0": norm} if i == 0 else {})
        expected |= {
            f"blocks.{i}.{part}.{name}": shape for part, group in parts.items() for name, shape in group.items()
        }
    for name in ("v0", "v1", "v2"):
        del expected[f"blocks.0.att.{name}"]
    expected |= {f"ln_out.{name}": shape for name, shape in norm.items()}
    found = {name: tuple(p.shape) for name, p in net.state_dict().items() if "projection" not in name}
    assert found == expected


@pytest.mark.parametrize(
    ("width", "ranks", "head"),
    [(32, (8, 8, 8, 8), 32), (64, (16, 16, 8, 16), 64), (96, (16, 16, 16, 24), 32), (256, (32, 32, 24, 48), 64)],
)
def test_default_sizes(width: int, ranks: tuple[int, ...], head: int) -> None:
    cfg = RWKV7Config(input_dim=1, output_dim=1, hidden_dim=width)
    assert tuple(cfg.ranks[letter] for letter in "wavg") == ranks
    assert cfg.head == head
    assert cfg.ffn == 4 * width


@pytest.mark.parametrize(
    ("name", "value"), [("decay_rank", 0), ("gate_rank", -1), ("ffn_dim", 0), ("head_dim", 5), ("head_dim", 1)]
)
def test_refuses_impossible_sizes(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"rwkv7: {name} = {value}\b"):
        build_model("rwkv7", input_dim=3, output_dim=2, hidden_dim=32, **{name: value})


# --- a fresh model ----------------------------------------------------------------------------------------------------


def test_a_fresh_model_uses_and_trains_every_part() -> None:
    torch.manual_seed(0)
    net = RWKV7(RWKV7Config(input_dim=3, output_dim=2, hidden_dim=32, head_dim=16, num_layers=3))
    x = torch.randn(2, 64, 3)
    shared: dict[str, Any] = {}
    u = net.blocks[0].ln0(net.input_projection(x))  # type: ignore[operator,union-attr]
    for branch in net.branches():
        out = branch.mixer(branch.norm(u), shared)
        assert 0.01 < float(out.detach().std() / u.detach().std()) < 1
        u = u + out
    net(x).square().mean().backward()
    for name, p in net.named_parameters():
        assert p.grad is not None, name
        assert torch.isfinite(p.grad).all(), name
        assert p.grad.abs().max() > 0, name


def test_fresh_decays_span_memory_lengths() -> None:
    net = RWKV7(RWKV7Config(input_dim=3, output_dim=2, hidden_dim=64, num_layers=2))
    for block in net.blocks:
        mixer = block.att
        assert isinstance(mixer, RWKV7TimeMix)
        log_w = -np.exp(-0.5) * torch.sigmoid(mixer.w0.detach())
        assert -1 / float(log_w.max()) > 300  # steps
        assert -1 / float(log_w.min()) < 3


# --- the graphs -------------------------------------------------------------------------------------------------------


def deployable(**changes: Any) -> StepModel:
    return build_model("rwkv7", input_dim=3, output_dim=2, **changes).eval()


def test_nodes_per_layer() -> None:
    graph = Graph("fast")
    deployable(num_layers=3).emit(graph)
    assert [graph.count(f"layers.{i}") for i in range(3)] == [53, 58, 58]


@pytest.mark.parametrize("variant", ["fast", "portable"])
@pytest.mark.parametrize("sizes", [{"hidden_dim": 48, "num_layers": 1}, {"hidden_dim": 8, "head_dim": 2}])
def test_parity_with_several_heads(sizes: dict[str, Any], variant: Any, tmp_path: Path) -> None:
    torch.manual_seed(2)
    bundle = export_step(deployable(**sizes), tmp_path / "m.onnx", variant=variant, batch=True, **NAMES)
    assert bundle.manifest.parity.relative_error <= 1e-5


@torch.no_grad()
def test_silence_is_finite_everywhere(tmp_path: Path) -> None:
    """A zero key has no direction to remove: neither torch nor the graphs may divide by its norm."""
    model = deployable(hidden_dim=16, head_dim=8, num_layers=1)
    for block in model.network.blocks:  # type: ignore[union-attr]
        block.att.key.weight.zero_()  # type: ignore[union-attr]
    x = parity.excitation(model, 40, 1, seed=0)
    expected = parity.run_torch(model, x)["y"]
    assert np.isfinite(expected).all()
    for variant in ("fast", "portable"):
        bundle = export_step(model, tmp_path / f"{variant}.onnx", variant=variant, **NAMES)  # type: ignore[arg-type]
        assert np.allclose(parity.run_bundle(bundle, x)["y"], expected, atol=1e-5)
