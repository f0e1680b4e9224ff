"""Kernels stand in for losses: the same numbers and gradients, and never for a loss that somebody has changed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rllab.algos.dqn import DQN
from rllab.algos.ppo import PPO
from rllab.algos.sac import SAC
from rllab.control.networks import MLP
from rllab.core.algorithm import Batch, Outputs, Update
from rllab.core.engine import frozen
from rllab.core.fused import digest, kernels_of, stands_for, unfused
from rllab.core.perceptron import Perceptrons, Tape
from rllab.core.recipe import load_recipe, read_recipe
from rllab.core.trainer import Trainer

KERNELS = {"dqn_kernel": DQN, "ppo_kernel": PPO, "sac_kernel": SAC}
CASES = [
    ("cartpole", ["double=false"]),
    ("cartpole", ["huber=false", "n_step=3"]),
    ("cartpole-ppo", ["ent_coef=0.1", "clip_range=0.01"]),
    ("pendulum-sac", []),
    ("racing", []),
]
OTHERS = [
    ("cartpole", ["dueling=true"]),
    ("cartpole", ["quantiles=4"]),
    ("cartpole", ["hidden=[8]", "precision=bf16"]),
    ("cartpole-ppo", ["env=rllab/Pendulum-v1", "expect={}", "until={}"]),
    ("minatar-breakout", []),
]


def updates(name: str, words: list[str], folder: Path) -> Iterator[tuple[Trainer, Update]]:
    """The updates of a recipe at its smoke size, each before it is made."""
    trainer = Trainer(load_recipe(name, words, smoke=True), folder)
    seen: list[Update] = []
    do = trainer.engine.update
    trainer.engine.update = lambda update, optimizers: (seen.append(update), do(update, optimizers))[1]  # type: ignore[method-assign, func-returns-value]
    for _ in trainer:
        yield from ((trainer, update) for update in seen)
        seen.clear()


def gradients(trainer: Trainer, update: Update) -> tuple[Tensor, Outputs, dict[str, Tensor]]:
    parts = {k: trainer.algorithm.parts()[k] for k in update.parts}
    named = {f"{k}.{n}": p for k, part in parts.items() for n, p in part.named_parameters()}
    for p in named.values():
        p.grad = None
    with frozen([o for k, o in trainer.optimizers.items() if k not in parts]):
        loss, outputs = trainer.engine.backward(update)
    return loss, outputs, {n: p.grad.clone() for n, p in named.items() if p.grad is not None}


@pytest.mark.parametrize(("name", "words"), CASES)
def test_a_kernel_computes_what_torch_does(name: str, words: list[str], tmp_path: Path) -> None:
    count = 0
    for trainer, update in updates(name, words, tmp_path / "run"):
        if update.parts == ("temperature",):
            continue
        loss, outputs, found = gradients(trainer, update)
        with Tape() as tape:
            update.loss(update.batch)
        assert tape.given is not None or update.parts == (
            "actor",
        )  # the critics are frozen in the actor's update alone
        with unfused():
            expected_loss, expected_outputs, expected = gradients(trainer, update)
        torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=1e-6)
        assert outputs.keys() == expected_outputs.keys() and found.keys() == expected.keys()
        for key, value in expected_outputs.items():
            torch.testing.assert_close(outputs[key], value, rtol=1e-4, atol=1e-5)
        largest = max(float(g.abs().max()) for g in expected.values())
        for key, gradient in expected.items():
            assert float((found[key] - gradient).abs().max()) < 1e-6 * max(largest, 1.0), key
        count += any(float(g.abs().max()) > 0 for g in expected.values())
    assert count > 2 and kernels_of(trainer.algorithm)


@pytest.mark.parametrize(("name", "words"), CASES)
def test_a_weight_that_is_nan_is_seen_in_the_loss(name: str, words: list[str], tmp_path: Path) -> None:
    kinds = {}
    for trainer, update in updates(name, words, tmp_path / "run"):
        if update.parts != ("temperature",):
            kinds[update.parts] = trainer, update
    for trainer, update in kinds.values():
        for part in trainer.algorithm.parts().values():
            for p in part.parameters():
                for place in {0, len(p) - 1} if p.ndim else [...]:  # of two critics, one and the other
                    kept = p.detach().clone()
                    with torch.no_grad():
                        p[place] = torch.nan
                    loss = gradients(trainer, update)[0]
                    with unfused():
                        expected = gradients(trainer, update)[0]
                    with torch.no_grad():
                        p.copy_(kept)
                    assert loss.isnan() == expected.isnan(), (update.parts, p.shape, place)


@pytest.mark.parametrize(("name", "words"), OTHERS)
def test_what_a_kernel_cannot_do_is_left_to_torch(name: str, words: list[str], tmp_path: Path) -> None:
    trainer, _ = next(updates(name, words, tmp_path / "run"))
    assert not kernels_of(trainer.algorithm)


@pytest.mark.parametrize("name", KERNELS)
def test_each_kernel_stands_for_the_present_code(name: str) -> None:
    kernel = import_module(f"rllab.algos.{name}")
    now, algorithm = digest(*kernel.PARTS), KERNELS[name](env="rllab/CartPole-v1")
    assert stands_for(kernel, algorithm), f"the code changed: change {name}.py with it, then set DIGEST to {now!r}"
    algorithm.loss = lambda batch: (batch["weight"].sum(), {})  # type: ignore[method-assign]
    assert not stands_for(kernel, algorithm)


@dataclass(kw_only=True)
class OtherTarget(DQN):
    """Half of the target; `loss` is inherited."""

    def td_target(self, batch: Batch) -> Tensor:
        return 0.5 * super().td_target(batch)


@dataclass(kw_only=True)
class Doubled(DQN):
    """Twice the loss, in an `Update` of its own."""

    def collect(self, step: int):  # type: ignore[no-untyped-def]
        own = super().collect(step)
        batch = next(own, None)
        while batch is not None:
            yield Update(batch, lambda b: (2 * self.loss(b)[0], {}), ("model",))
            batch = next(own, None)
        return {"env/steps": self.env_steps}


@pytest.mark.parametrize("algo", ["OtherTarget", "Doubled"])
def test_a_changed_loss_is_the_one_that_is_trained(algo: str, tmp_path: Path) -> None:
    words = (
        "env: rllab/CartPole-v1\ntotal_steps: 3\nnum_envs: 8\ntrain_freq: 8\ngradient_steps: 2\nlearning_starts: 60\n"
    )
    recipe = read_recipe(f"algo: {Path(__file__).name}:{algo}\n{words}", "r.yaml", Path(__file__).parent, "r")
    trainer = Trainer(recipe, tmp_path / "run")
    trainer.restore()
    dqn = trainer.algorithm
    assert isinstance(dqn, DQN)
    dqn.interact(0)
    batch = dqn.minibatch(dqn.ctx.rng("test", 0))
    plain = DQN.loss if algo == "OtherTarget" else lambda self, b: (2 * DQN.loss(self, b)[0], {})
    with Tape() as tape:
        dqn.loss(batch)
    assert (tape.given is None) == (algo == "OtherTarget")
    update = Update(batch, lambda b: plain(dqn, b), ("model",))
    *_, found = gradients(trainer, update)
    with unfused():
        *_, expected = gradients(trainer, update)
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-5, atol=1e-7)


def test_without_kernels_torch_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where numba finds no folder for its cache, as in the sandbox that grades submissions."""
    for module in ("perceptron", "fused"):
        monkeypatch.setattr(f"rllab.core.{module}.kernel_module", lambda: None)
    net, x = MLP(3, [5], 2), torch.randn(4, 3)
    with torch.no_grad():
        assert torch.equal(net(x), net.layered(x)) and net.flatten() is None
    trainer, update = next(updates("cartpole", [], tmp_path / "run"))
    assert update.batch and not kernels_of(trainer.algorithm)


def test_comments_and_docstrings_are_no_code() -> None:
    def first(x: int) -> int:
        """Doubles."""
        return x + x  # twice

    texts = {
        name: digest_of(text)
        for name, text in {
            "same": "def f(x):\n    return x + x\n",
            "commented": "def f(x):\n    '''Doubles.'''\n    # twice\n    return x + x  # x\n",
            "spaced": "def f(x):\n\n    return  x+x\n",
            "other": "def f(x):\n    return x + 2\n",
            "moved": "def f(x):\n    if x:\n        y = 1\n    return y\n",
            "indented": "def f(x):\n    if x:\n        y = 1\n        return y\n",
            "text": "def f(x):\n    return 'a b'\n",
            "text without space": "def f(x):\n    return 'ab'\n",
        }.items()
    }
    assert texts["same"] == texts["commented"] == texts["spaced"]
    assert len(set(texts.values())) == 6
    assert digest(first) != digest(digest_of) and digest(int) == ""


def digest_of(text: str) -> str:
    from rllab.core.fused import _words

    return "\n".join(_words(text))


def test_tanh_is_torchs() -> None:
    net = MLP(1, [1], 1, torch.tanh)
    with torch.no_grad():
        for p in net.parameters():
            p.fill_(1.0 if p.ndim == 2 else 0.0)
        x = torch.cat([torch.linspace(-12, 12, 100_001), torch.tensor([0.0, 1e-30, -1e-8, 1e30, -1e30])])[:, None]
        torch.testing.assert_close(net(x), x.tanh(), rtol=5e-7, atol=1e-37)


@pytest.mark.parametrize("activation", [torch.relu_, torch.tanh])
def test_nan_stays_nan(activation: Callable[[Tensor], Tensor]) -> None:
    net, x = MLP(2, [70], 3, activation), torch.zeros(20, 2)
    x[5] = torch.nan
    with torch.no_grad():
        out = net(x)
    assert torch.isnan(out[5]).all() and torch.isfinite(out[6:]).all() and torch.isfinite(out[:5]).all()


def test_members_are_perceptrons_of_their_own() -> None:
    torch.manual_seed(0)
    both = Perceptrons(3, [8, 6], 4, members=2)
    x = torch.randn(10, 3, requires_grad=True)
    expected = both.layered(x)
    expected.square().sum().backward()
    wanted, of_x = [p.grad.clone() for p in both.parameters() if p.grad is not None], x.grad
    both.zero_grad()
    x.grad = None
    with Tape() as tape:
        out = both(x)
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6)
    out.square().sum().backward()
    tape.backward()
    torch.testing.assert_close(x.grad, of_x, rtol=1e-5, atol=1e-6)
    for p, gradient in zip(both.parameters(), wanted, strict=True):
        torch.testing.assert_close(p.grad, gradient, rtol=1e-5, atol=1e-6)
    assert both(torch.zeros(0, 3)).shape == (2, 0, 4)


def test_products_take_torchs_threads() -> None:
    from rllab.core.perceptron_kernel import _LIBRARIES

    before = torch.get_num_threads()
    try:
        for count in (2, 1):
            torch.set_num_threads(count)
            with torch.no_grad():
                MLP(2, [4], 1)(torch.zeros(1, 2))
            blas = [lib.num_threads for lib in _LIBRARIES.lib_controllers if lib.user_api == "blas"]
            assert blas and max(blas) <= count
    finally:
        torch.set_num_threads(before)
