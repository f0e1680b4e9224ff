"""The prompts of items in a style, as a model's chat template or, without one, the style's `turn` renders them."""

from dataclasses import dataclass
from typing import Any

from rllab.core.errors import Mistake
from rllab.core.messages import END_THINK, THINK, opening_of
from rllab.evals.items import Item, Items
from rllab.evals.style import Style, filled, of_kind
from rllab.text.channels import ANALYSIS, FINAL, HARMONY, TO_FINAL
from rllab.text.chat import ids_behind, prompt_ids, prompt_texts
from rllab.text.models import LanguageModel
from rllab.text.tokenizers import CHAT


@dataclass(frozen=True)
class Prompt:
    """What a model is given of an item.

    text, ids: with the begin of the reply. reply: that begin, with the opening tag of thinking that the template may
    write. trigger: asks for the answer behind the reasoning; "" for one stage. choices: the texts that are compared.
    """

    text: str
    ids: list[int]
    reply: str
    trigger: str
    choices: tuple[str, ...] = ()

    @property
    def staged(self) -> bool:
        """Whether the answer is asked for behind the reasoning, in a second stage."""
        return bool(self.trigger or self.choices)


def has_styles(lm: LanguageModel) -> bool:
    """Whether the model's chat template is one of the lab's own, which have the styles direct, think and free."""
    return lm.tokenizer.chat_template in (CHAT, HARMONY)


def prompts(lm: LanguageModel, style: Style, task: Items) -> list[Prompt]:
    """Returns the prompt of each item.

    Raises:
        Mistake: the style needs examples or choices that the task has not, or the chat template fails.
    """
    if style.exemplar and not task.exemplars and not has_styles(lm):
        raise Mistake(
            f"the task {task.name} has no examples: take a style without, such as zero-shot-cot, "
            "or give its definition `exemplars`"
        )
    if style.measure == "choice" and (without := next((i for i in task.items if not i.choices), None)):
        raise Mistake(
            f"item {without.id!r} of {task.name} has no choices to compare (its kind is "
            f"{without.kind}): take a style whose answer is read, such as zero-shot-cot"
        )
    rows = [_row(lm, style, task, item) for item in task.items]
    texts = prompt_texts(lm.tokenizer, rows)
    ids = prompt_ids(lm.tokenizer, rows, texts)
    return [_prompt(lm, style, *each) for each in zip(task.items, texts, ids, strict=True)]


def _row(lm: LanguageModel, style: Style, task: Items, item: Item) -> dict[str, Any]:
    """Returns a row whose prompt is a text or a conversation."""
    if item.complete:
        return {"prompt": item.question}
    if has_styles(lm):
        own = item.row.get("prompt") or [{"role": "user", "content": item.question}]
        return {"prompt": own, "style": style.template_style}
    own = item.row.get("prompt")
    before = (
        list(own[:-1]) if isinstance(own, list) and not item.row.get("question") else []
    )  # such as a system message
    shots = task.exemplars if style.exemplar else ()
    turns = [(filled(style.message, {"question": shot["question"]}), filled(style.exemplar, shot)) for shot in shots]
    message = filled(style.message, {"question": item.question})
    if lm.tokenizer.chat_template is None:
        if before:
            raise Mistake(
                f"item {item.id!r} of {task.name} has messages before its question, and this model has no chat "
                "template: take one that has, or give the rows a column `question`"
            )
        last = filled(style.turn, {"message": message, "reply": ""}).rstrip(" ")
        each = [filled(style.turn, {"message": asked, "reply": reply}) for asked, reply in turns]
        return {"prompt": "\n\n".join([*([task.instruction] if task.instruction else []), *each, last])}
    roles = ("user", "assistant")
    messages = [{"role": role, "content": text} for turn in turns for role, text in zip(roles, turn, strict=True)]
    messages.append({"role": "user", "content": message})
    if task.instruction:
        messages[0] = messages[0] | {"content": f"{task.instruction}\n\n{messages[0]['content']}"}
    return {"prompt": [*before, *messages], "style": style.template_style}


def _prompt(lm: LanguageModel, style: Style, item: Item, text: str, ids: list[int]) -> Prompt:
    if item.complete:
        return Prompt(text, ids, "", "", item.choices)
    listed = item.kind == "yesno" or f"({item.letters[-1:]})" in item.question  # else the texts follow the question
    words = item.choices if item.kind == "yesno" or not listed else tuple(item.letters)
    choices = tuple(f" {word}" for word in words) if style.measure == "choice" else ()
    trigger = of_kind(style.trigger, item.kind, item.letters)
    reply = "" if choices and not listed and not trigger else of_kind(style.reply, item.kind, item.letters)
    if has_styles(lm):
        reply, trigger = style.template_reply, style.template_trigger
    opening = opening_of(text)
    if lm.harmony:
        answers = bool(choices) or style.template_style == "direct"
        reply, trigger = _in_channels(reply, trigger, opening, answers=answers)
    elif reply and (lm.tokenizer.chat_template is None or has_styles(lm)):
        reply = f" {reply}"
    if reply:
        ids, text = ids + ids_behind(lm.tokenizer, text, reply), text + reply
    return Prompt(text, ids, opening + reply, trigger, choices)


def _in_channels(reply: str, trigger: str, opening: str, *, answers: bool) -> tuple[str, str]:
    """(the begin of the reply, the trigger) in Harmony's channels: reasoning in `analysis`, an answer in `final`.

    opening: the channel that the template has begun. answers: the reply is an answer, unless a trigger follows. Where
    it has no begin and is neither, the model chooses the channel.
    """
    reply = reply.replace(THINK, "").strip()
    if not opening and (reply or trigger or answers):
        reply = (ANALYSIS if trigger or not answers else FINAL) + reply
    between = "" if opening == FINAL else TO_FINAL
    return reply, between + trigger.replace(END_THINK, "").strip() if trigger else ""


def room(lm: LanguageModel) -> int | None:
    """Returns the most tokens of the model's context; None where its config does not limit them."""
    limit = getattr(lm.model.config, "max_position_embeddings", None)
    return int(limit) if limit else None
