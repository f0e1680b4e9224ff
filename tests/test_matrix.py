"""Tiny models of the published families, with their tokenizers and chat templates, through the lab's algorithms.

Each cell of tests/matrix.py is one test: the learned tokens are those of a rendering written here; log-probabilities,
scores and greedy completions are those of plain transformers, one sequence at a time, on the folder that the model came
from or on the checkpoint that was saved.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from families import CALLING, FAMILIES, TALK, WEATHER, by_hand, tokenizer, turns
from matrix import MEMBERS, MESSAGES, METHODS, Member
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, GenerationConfig

from rllab.algos.dpo import DPO
from rllab.algos.grpo import GRPO
from rllab.algos.reward_model import RewardModel
from rllab.algos.sft import SFT
from rllab.core.algorithm import Batch
from rllab.core.checkpoint import Checkpoints, load_parts
from rllab.core.engine import Engine
from rllab.core.errors import FieldMistake
from rllab.core.names import Term
from rllab.core.recipe import Settings
from rllab.testing.algorithms import digest
from rllab.text.algorithm import TextAlgorithm
from rllab.text.logprobs import logp_and_hidden

Row = dict[str, Any]
Sequences = dict[tuple[int, ...], list[int]]
"""The token ids of sequences, and the places of the learned tokens in each."""
NEW_TOKENS = 24
CLOSE = {"rtol": 0.0, "atol": 2e-5}
CALLED = {
    "llama3": '{"name": "weather", "parameters": {"city": "Paris"}}',
    "mistral": '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Paris"}, "id": "call00001"}]',
    "qwen2.5": '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>',
}
TEXTS = [("What is 0 plus 1?", " The answer is 1."), ("And plus 2? It is", " 2, as we add.")]


@pytest.fixture(autouse=True)
def templates_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Templates are not rendered in a process of their own first, which takes a second."""
    monkeypatch.setattr("rllab.text.load.checked_template", lambda *_: nullcontext())


class Two:
    """A task of two rows, over and over."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows

    def size(self, split: str) -> int:
        return 20

    def row(self, index: int, split: str) -> Row:
        return self.rows[index % 2]


class Folder:
    """A member's folder as transformers saves it, with weights as large as a trained model's and two stop tokens."""

    def __init__(self, member: Member, path: Path) -> None:
        self.member, self.path, self.words = member, path, tokenizer(member.tokenizer)
        self.plain = FAMILIES[member.tokenizer].template is None
        self.words.save_pretrained(path)
        own = {"vocab_size": len(self.words), "pad_token_id": self.words.pad_token_id}
        text = member.shape.get("text_config")  # of a model of images and text
        shape = member.shape | ({"text_config": text | own} if text else own)
        model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(**shape)).train(False)
        spread(model, 1)
        long = [greedy(model, self.prompt(i), eos_token_id=None) for i in range(2)]
        model.generation_config = GenerationConfig(eos_token_id=two_ends(*long), repetition_penalty=1.2)  # type: ignore[no-untyped-call]
        model.save_pretrained(path)
        self.model = AutoModelForCausalLM.from_pretrained(path)

    def prompt(self, index: int) -> list[int]:
        """The ids of a prompt, as the tokenizer makes them."""
        if self.plain:
            return list(self.words(TEXTS[index][0]).input_ids)
        messages = TALK[: 1 + 2 * index]
        return list(self.words.apply_chat_template(messages, add_generation_prompt=True)["input_ids"])


def two_ends(one: list[int], two: list[int]) -> list[int]:
    """Two tokens of which each ends one of the completions, as late as possible."""
    pairs = [(a, b) for a in one for b in two if b not in one[: one.index(a)] and a not in two[: two.index(b)]]
    return list(max((p for p in pairs if p[0] != p[1]), key=lambda p: one.index(p[0]) + two.index(p[1])))


def spread(model: torch.nn.Module, seed: int) -> None:
    """Draws weights anew; those that scale the steps of a state space stay as they are."""
    torch.manual_seed(seed)
    for name, p in model.named_parameters():
        if not name.endswith(("A_log", ".D")) and "dt_proj" not in name:
            torch.nn.init.normal_(p, 1.0 if p.ndim == 1 and "bias" not in name else 0.0, 0.2)


@torch.no_grad()
def greedy(model: Any, ids: list[int], **settings: Any) -> list[int]:
    """The completion of a prompt by transformers."""
    how = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "pad_token_id": 0, "repetition_penalty": 1.0}
    out = model.generate(torch.tensor([ids]), **how | settings)
    return out[0, len(ids) :].tolist()  # type: ignore[no-any-return]


@torch.no_grad()
def logp(model: Any, ids: Sequence[int]) -> Tensor:
    """The log-probability of each token [T] behind those before it; 0 of the first."""
    tokens = torch.tensor([ids])
    logits = model(tokens).logits[0, :-1].log_softmax(-1)
    return torch.cat([torch.zeros(1), logits.gather(1, tokens[0, 1:, None]).squeeze(1)])


@pytest.fixture(scope="module", params=MEMBERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder(MEMBERS[request.param], tmp_path_factory.mktemp("member"))


def ready(algorithm: Any) -> Any:
    settings = Settings(algo="x", total_steps=1, device="cpu")
    algorithm.setup(Engine(settings).context(settings))
    return algorithm


def given(folder: Folder, rows: Sequence[Row]) -> dict[str, Any]:
    return {"task": lambda: Two(rows), "model": str(folder.path), "length": 512, "batch_size": 2}


def sequences(batch: Batch) -> list[tuple[int, int, Tensor, list[int]]]:
    """Of each completion in a packed batch: its row, its number there, its places in the row, and its token ids."""
    each = []
    for row, (document, completion) in enumerate(zip(batch["document"], batch["completion"], strict=True)):
        for number in range(int(completion.max()) + 1):
            own = completion == number
            shared = (completion < 0) & (document == document[own][0])
            places = (own | shared).nonzero().squeeze(1)
            each.append((row, number, places, batch["input_ids"][row, places].tolist()))
    return each


def learned(batch: Batch) -> Sequences:
    found = {}
    for row, _, places, ids in sequences(batch):
        found[tuple(ids)] = [i + 1 for i, place in enumerate(places.tolist()) if batch["learned"][row, place]]
    return found


def in_order(batch: Batch, values: Tensor, model: Any) -> None:
    """Values [B, L] are the log-probabilities of the learned tokens in transformers, one sequence at a time."""
    for row, _, places, ids in sequences(batch):
        known = batch["learned"][row, places] != 0
        known[-1] = False
        expected = logp(model, ids).roll(-1)
        torch.testing.assert_close(values[row, places][known], expected[known], **CLOSE)


def pieces(text: str, own: Sequence[str]) -> list[tuple[str, bool]]:
    """A text up to the last of `own`, the texts in it that are learned."""
    each = []
    for part in own:
        before, _, text = text.partition(part)
        each += [(before, False), (part, True)]
    return each


def rows_of(folder: Folder, method: str) -> list[Row]:
    """Two rows to learn."""
    member = folder.member
    if method == "one turn" and folder.plain:
        return [{"prompt": prompt, "completion": completion} for prompt, completion in TEXTS]
    if method == "tools":
        return [{"messages": CALLING[:n], "tools": [WEATHER]} for n in (4, 6)]
    if method == "thinking":
        return [{"messages": thinking(TALK[:n], member.thinking == "key" and n == 4)} for n in (2, 4)]
    return [{"messages": m} for m in ([TALK[:2], TALK[2:4]] if method == "one turn" else [TALK, TALK[:4]])]


def thinking(messages: list[Row], key: bool) -> list[Row]:
    """The messages with a thought in each of the assistant's: in a key of its own, or in the content."""
    thought = {"reasoning_content": "we add"} if key else {}
    begin = "" if key else "<think>\nwe add\n</think>\n\n"
    return [m if m["role"] == "user" else m | {"content": begin + m["content"]} | thought for m in messages]


def expected(folder: Folder, method: str) -> Sequences:
    """What is learned of `rows_of`, written without the lab."""
    words, name = folder.words, folder.member.tokenizer
    qwen3, end = name == "qwen3", FAMILIES[name].end
    found = {}
    for row in rows_of(folder, method):
        if folder.plain:
            ids = [*words(row["prompt"] + row["completion"]).input_ids, words.eos_token_id]
            mask = [i >= len(words(row["prompt"]).input_ids) for i in range(len(ids))]
        elif method == "tools" and name not in CALLED and not qwen3:
            continue  # which is refused
        elif method == "tools":
            text = words.apply_chat_template(row["messages"], tools=row["tools"], tokenize=False)
            space = " " if name == "mistral" else ""
            says = [space + m["content"] for m in row["messages"] if m["role"] == "assistant" and m["content"]]
            if qwen3:  # the last answer behind the user's last message, and what comes before it, get a thought
                says[-1] = "<think>\n\n</think>\n\n" + says[-1]
            called = CALLED["qwen2.5" if qwen3 else name]
            ids, mask = by_hand(words, pieces(text, [s + end for s in (called, *says)]))
        else:
            messages = list(row["messages"])
            if qwen3:
                thought = "we add" if method == "thinking" else ""
                says = messages[-1]["content"].rpartition("</think>")[2].strip()
                messages = [m | {"content": m["content"].rpartition("</think>")[2].strip()} for m in messages]
                messages[-1] |= {"content": f"<think>\n{thought}\n</think>\n\n{says}"}
            written = turns(name, messages)
            if qwen3 and method == "thinking":  # earlier thoughts are left out, and so their turns are not learned
                last = max(i for i, (_, yes) in enumerate(written) if yes)
                written = [(text, yes and i == last) for i, (text, yes) in enumerate(written)]
            ids, mask = by_hand(words, written)
        found[tuple(ids)] = [i for i, yes in enumerate(mask) if yes]
    return found


def saved(folder: Folder, algorithm: TextAlgorithm, path: Path, head: Any) -> Any:
    """The model in plain transformers, from a checkpoint of the algorithm."""
    checkpoints = Checkpoints(path / "checkpoints")
    checkpoints.save(1, algorithm.parts(), {}, {}, algorithm.write_files)
    newest = checkpoints.newest()
    assert newest is not None
    part = algorithm.parts()["model"]
    weights = digest(dict(part.named_parameters()))
    names = set(newest.part("model"))
    if head is AutoModelForCausalLM:
        assert names == set(load_file(folder.path / "model.safetensors"))  # those that are published
    spread(part, 3)
    load_parts(algorithm.parts(), newest)
    assert digest(dict(part.named_parameters())) == weights
    model, report = head.from_pretrained(newest.folder, output_loading_info=True)
    assert not any(report.values())
    return model


def check_sft(folder: Folder, method: str, path: Path) -> None:
    sft = ready(SFT(**given(folder, rows_of(folder, method))))
    batch = next(sft.collect(0))
    assert learned(batch) == expected(folder, method)
    with torch.no_grad():
        in_order(batch, -sft.loss(batch)[1]["nll"], folder.model)
        if method == "one turn":
            spread(sft._lm.model, 2)
            model = saved(folder, sft, path, AutoModelForCausalLM)
            in_order(batch, -sft.loss(batch)[1]["nll"], model)
            ids = batch["input_ids"][:, : int((batch["document"] >= 0).sum(1).min())]
            torch.testing.assert_close(model(ids).logits, sft._lm.model(ids).logits, rtol=1e-6, atol=1e-6)
    if method == "thinking" and folder.member.thinking == "content":
        rows = [{"messages": thinking(TALK[:n], key=True)} for n in (2, 4)]
        with pytest.raises(FieldMistake, match="row 1 of train: its chat template leaves out the thinking of"):
            ready(SFT(**given(folder, rows)))
    assert (sft._lm.shape is not None) == folder.member.native


def pairs(folder: Folder) -> tuple[list[Row], Sequences]:
    """Two rows with two answers to a prompt each, and what is learned of them, written without the lab."""
    rows, found = [], {}
    for index, (prompt, completion) in enumerate(TEXTS):
        answers: list[Any] = [completion, " I am fine."]
        before: Any = prompt if folder.plain else TALK[: 1 + 2 * index]
        if not folder.plain:
            answers = [[{"role": "assistant", "content": text.strip()}] for text in answers]
        rows.append({"prompt": before, "chosen": answers[0], "rejected": answers[1]})
        for answer in answers:
            if folder.plain:
                ids = [*folder.words(before + answer).input_ids, folder.words.eos_token_id]
            else:
                thought = "<think>\n\n</think>\n\n" if folder.member.tokenizer == "qwen3" else ""
                last = {"role": "assistant", "content": thought + answer[0]["content"]}
                ids, _ = by_hand(folder.words, turns(folder.member.tokenizer, [*before, last]))
            found[tuple(ids)] = list(range(len(folder.prompt(index)), len(ids)))
    return rows, found


def each_pair(batch: Batch, value: Callable[[list[int]], float]) -> tuple[Tensor, Tensor]:
    """A value of the better and of the worse sequence of each pair [N], in the order of the batch."""
    ids = {(row, number): ids for row, number, _, ids in sequences(batch)}
    real = batch["weight"].nonzero().tolist()
    each = [[value(ids[row, int(batch[side][row, p])]) for row, p in real] for side in ("better", "worse")]
    return torch.tensor(each[0]), torch.tensor(each[1])


@torch.no_grad()
def check_dpo(folder: Folder, path: Path) -> None:
    rows, found = pairs(folder)
    dpo = ready(DPO(**given(folder, rows), beta=1.0))
    batch = next(dpo.collect(0))
    assert learned(batch) == found
    spread(dpo._lm.model, 2)
    model, outputs = saved(folder, dpo, path, AutoModelForCausalLM), dpo.loss(batch)[1]

    def ratio(ids: list[int]) -> float:
        return float((logp(model, ids) - logp(folder.model, ids))[found[tuple(ids)]].sum())

    real = batch["weight"] > 0
    for ours, theirs in zip((outputs["better"], outputs["worse"]), each_pair(batch, ratio), strict=True):
        torch.testing.assert_close(ours[real], theirs, rtol=0.0, atol=2e-4)  # of sums of up to 20 tokens


@torch.no_grad()
def check_reward_model(folder: Folder, path: Path) -> None:
    rows, found = pairs(folder)
    made = ready(RewardModel(**given(folder, rows)))
    batch = next(made.collect(0))
    assert learned(batch) == found
    spread(made._lm.model, 2)
    model = saved(folder, made, path, AutoModelForSequenceClassification)
    better, worse = each_pair(batch, lambda ids: float(model(torch.tensor([ids])).logits))
    difference = made.loss(batch)[1]["difference"][batch["weight"] > 0]
    torch.testing.assert_close(difference, better - worse, **CLOSE)
    assert difference.abs().min() > 0.01


@torch.no_grad()
def check_grpo(folder: Folder) -> None:
    rows = [{"prompt": TEXTS[i][0] if folder.plain else TALK[: 1 + 2 * i]} for i in range(2)]
    sampled = {"max_new_tokens": NEW_TOKENS, "num_generations": 4, "top_k": 1, "preflight_stops": False}
    grpo = ready(
        GRPO(**given(folder, rows), **sampled, reward=Term("noise", 1.0, "rllab.rewards:noise", {}, None, False))
    )
    batch = next(grpo.collect(0))
    grpo._rewards.close()
    begins = [folder.prompt(i) for i in range(2)]
    ends = [greedy(folder.model, ids) for ids in begins]
    assert len({ids[-1] for ids in ends}) == 2 and {row["finish"] for row in grpo.rollouts} == {"stop"}
    assert learned(batch) == {
        (*begin, *end): list(range(len(begin), len(begin) + len(end))) for begin, end in zip(begins, ends, strict=True)
    }
    in_order(batch, batch["sampled_logp"], folder.model)
    in_order(batch, -grpo.loss(batch)[1]["entropy"], folder.model)


def test_gradient_checkpointing_changes_no_gradient(folder: Folder) -> None:
    gradients = []
    for checkpointing in (False, True):
        sft = ready(SFT(**given(folder, rows_of(folder, "one turn")), gradient_checkpointing=checkpointing))
        sft.loss(next(sft.collect(0)))[0].backward()
        gradients.append({name: p.grad for name, p in sft._lm.model.named_parameters() if p.grad is not None})
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


def test_a_value_head_fits_the_hidden_states(folder: Folder) -> None:
    sft = ready(SFT(**given(folder, rows_of(folder, "one turn"))))
    logp_BL, hidden_TD = logp_and_hidden(sft._lm, next(sft.collect(0)))
    assert hidden_TD.shape == ((logp_BL != 0).sum(), sft._lm.width)


@pytest.mark.parametrize("method", METHODS)
def test_a_cell(folder: Folder, method: str, tmp_path: Path) -> None:
    reason = folder.member.refused.get(method)
    with pytest.raises(FieldMistake, match=MESSAGES[reason]) if reason else nullcontext():
        if method == "DPO":
            check_dpo(folder, tmp_path)
        elif method == "reward model":
            check_reward_model(folder, tmp_path)
        elif method == "GRPO":
            check_grpo(folder)
        else:
            check_sft(folder, method, tmp_path)
