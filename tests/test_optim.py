"""Optimizers, schedules and precisions against torch's own and known answers."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import run
from safetensors.torch import load_file

from rllab.core.recipe import Optim
from rllab.core.trainer import Trainer
from rllab.testing import outcome


@pytest.mark.parametrize(
    ("optim", "factors"),
    [
        (Optim(warmup=4), [0.25, 1.0, 1.0]),
        (Optim(decay="linear"), [1.0, 0.5, 0.0]),
        (Optim(decay="cosine"), [1.0, 0.5, 0.0]),
        (Optim(warmup=4, decay="linear"), [0.25, 5 / 6, 0.0]),
    ],
)
def test_schedules_at_three_points(optim: Optim, factors: list[float]) -> None:
    from rllab.core.optim import schedule

    middle = 10 if not optim.warmup else 5 if optim.decay == "constant" else 4 + 16 // 6
    assert schedule(optim, 0, 20) == factors[0]
    if optim.warmup and optim.decay == "linear":
        assert schedule(optim, 12, 20) == 0.5
    else:
        assert schedule(optim, middle, 20) == pytest.approx(factors[1])
    assert schedule(optim, 20, 20) == pytest.approx(factors[2], abs=1e-12)


def test_adamw_is_torchs(toy, tmp_path: Path) -> None:
    """Our direct call of the fused kernel gives the same weights as torch's optimizer."""
    from rllab.core.optim import PartOptimizer

    torch.manual_seed(0)
    ours, theirs = torch.nn.Linear(5, 3), torch.nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    optimizer = PartOptimizer(ours, Optim(lr=0.01, weight_decay=0.1), torch.device("cpu"))
    reference = torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(5):
        x = torch.randn(7, 5)
        for net in (ours, theirs):
            net.zero_grad()
            net(x).square().sum().backward()
        optimizer.step()
        reference.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
    moments = optimizer.state()
    for name, p in theirs.named_parameters():
        assert moments[name].keys() == reference.state[p].keys()


def test_adamw_leaves_weights_without_gradient_alone() -> None:
    """A parameter without a gradient neither moves nor counts a step, as in torch's AdamW."""
    from rllab.core.adamw import AdamW

    trained, idle = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    optimizer = AdamW([trained, idle], 0.1, (0.9, 0.999), 1e-8, 0.1)
    trained.grad = torch.ones(2)
    optimizer.step()
    assert idle.tolist() == [1.0, 1.0] and idle not in optimizer.state and trained.tolist() != [1.0, 1.0]


def test_adamw_does_not_import_the_compiler() -> None:
    """torch.optim.AdamW does, which takes a second of each process."""
    code = (
        "import sys, torch; from rllab.core.optim import PartOptimizer; from rllab.core.recipe import Optim\n"
        "net = torch.nn.Linear(3, 2); part = PartOptimizer(net, Optim(), torch.device('cpu'))\n"
        "net(torch.ones(1, 3)).sum().backward(); part.step(); print('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_muon_updates_only_matrices() -> None:
    from rllab.core.optim import PartOptimizer

    net = torch.nn.Sequential(torch.nn.Embedding(7, 4), torch.nn.Linear(4, 3))
    part = PartOptimizer(net, Optim(name="muon"), torch.device("cpu"))
    taken = {type(o).__name__: [tuple(p.shape) for p in o.param_groups[0]["params"]] for o in part.optimizers}
    assert taken == {"AdamW": [(7, 4), (3,)], "Muon": [(3, 4)]}


def test_muon_is_torchs() -> None:
    """Batched over equal shapes, it gives the weights of torch's Muon, up to the rounding of its bf16 iteration."""
    from rllab.core.muon import Muon

    torch.manual_seed(0)
    shapes = [(8, 8), (8, 8), (24, 8), (8, 24)]
    ours = [torch.nn.Parameter(torch.randn(s)) for s in shapes]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    first = [p.detach().clone() for p in ours]
    optimizer = Muon(ours, lr=0.01, weight_decay=0.1, momentum=0.95)
    reference = torch.optim.Muon(theirs, lr=0.01, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape)
            q.grad = p.grad.clone()
        optimizer.step()
        reference.step()
    for p, q, start in zip(ours, theirs, first, strict=True):
        assert (p - q).norm() < 0.03 * (q - start).norm()


def test_clipping_and_grad_norm(toy, tmp_path: Path) -> None:
    row = run(toy("optim={name: sgd, lr: 1.0, max_grad_norm: 1e-3}", "total_steps=1", "updates=1"), tmp_path).row
    assert row["optim/grad_norm"] > 1e-2
    start = Trainer(
        toy("optim={name: sgd, lr: 1.0, max_grad_norm: 1e-3}", "total_steps=1", "updates=1"), tmp_path / "s"
    )
    start.restore()
    before = start.algorithm.model.state_dict()
    after = load_file(tmp_path / "checkpoints/00000001/model.safetensors")
    moved = math.sqrt(sum(float((after[k] - v).square().sum()) for k, v in before.items()))
    assert moved == pytest.approx(1e-3, rel=1e-3)


def test_precisions_train(toy, tmp_path: Path) -> None:
    plain = run(toy("precision=fp32", "total_steps=20"), tmp_path / "fp32").folder.rows()[-1]["eval/error"]
    for name in ("bf16", "fp16"):
        low = run(toy(f"precision={name}", "total_steps=20"), tmp_path / name).folder.rows()[-1]["eval/error"]
        assert low == pytest.approx(plain, rel=0.1) and low != plain


def test_fp16_resumes_with_its_scale(toy, tmp_path: Path) -> None:
    whole = outcome(run(toy("precision=fp16"), tmp_path / "whole"))
    run(toy("precision=fp16"), tmp_path / "cut", stop_after=3)
    assert outcome(run(toy("precision=fp16"), tmp_path / "cut")) == whole
