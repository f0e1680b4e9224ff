"""Published datasets as tasks: from the folder that RLLAB_DATA names where it has them, else from the hub."""

import os
import re
from pathlib import Path
from typing import Any

from rllab.core.errors import FieldMistake
from rllab_envs.tasks.dataset import Dataset

ASK = "Think step by step, and end with #### and the number."
ASK_TAGS = "Think step by step between <think> and </think>, and end with #### and the number."
ASK_BOX = "Think step by step, and put the final answer into \\boxed{}."


def here(name: str, otherwise: str) -> str:
    """Where a dataset is: a file or folder below RLLAB_DATA, or a name of the hub."""
    local = Path(os.environ.get("RLLAB_DATA", "/nowhere")) / name
    return str(local) if local.exists() else otherwise


class GSM8K(Dataset):
    """Grade-school word problems with worked solutions (Cobbe et al. 2021); answers end in `#### 72`.

    think: ask for the thinking between tags, as DeepSeek-R1 is asked; the worked solutions stand between them, too.
    """

    def __init__(self, *, path: str = "", think: bool = False) -> None:
        self._think = think
        where = path or here("gsm8k", "openai/gsm8k")
        super().__init__(where, config="main", columns={"question": "prompt", "answer": "completion"})

    def row(self, index: int, split: str) -> dict[str, Any]:
        """`prompt` and `completion` as conversations, `target` and `kind`."""
        row = super().row(index, split)
        solution = re.sub(r"<<[^>]*>>", "", row["completion"])  # a calculator's marks, which are not part of the text
        steps, mark, target = solution.rpartition("####")
        said = f"<think>{steps.strip()}</think>\n{mark}{target}" if self._think else solution
        return {
            "prompt": [{"role": "user", "content": f"{row['prompt']}\n{ASK_TAGS if self._think else ASK}"}],
            "completion": [{"role": "assistant", "content": said}],
            "target": target.strip().replace(",", ""),
            "kind": "number",
        }


class MATH(Dataset):
    """Competition problems with worked solutions in LaTeX (Hendrycks et al. 2021); answers stand in a last `\\boxed{}`.

    path: a file of rows with `problem`, `solution` and `answer`, or a folder with files named by their split. A file
    alone, as are the 500 problems of Lightman et al. 2024, is a benchmark: all of it is the test.
    """

    def __init__(self, *, path: str = "") -> None:
        where = path or here("math500/math500.jsonl", "HuggingFaceH4/MATH-500")
        super().__init__(where, columns={"problem": "prompt", "solution": "completion"})
        if not all(row.get("answer") for rows in self._rows.values() for row in rows):
            raise FieldMistake("task", f"{where}: a row has `problem`, `solution` and `answer`; some lack the answer")

    def row(self, index: int, split: str) -> dict[str, Any]:
        """`prompt` and `completion` as conversations, `target` and `kind`, and `subject` and `level` where known."""
        row = super().row(index, split)
        return {
            "prompt": [{"role": "user", "content": f"{row['prompt']}\n{ASK_BOX}"}],
            "completion": [{"role": "assistant", "content": row["completion"]}],
            "target": row["answer"],
            "kind": "latex",
            **{k: row[k] for k in ("subject", "level") if k in row},
        }

    def _hold_out(self) -> None:
        if self._rows.get("train") and self._rows.get("test"):
            super()._hold_out()
        else:
            self._rows = {"train": [], "test": self._rows.get("test") or self._rows["train"]}


class HHRLHF(Dataset):
    """Which of two replies people found less harmful (Bai et al. 2022)."""

    def __init__(self, *, path: str = "") -> None:
        super().__init__(path or here("hh_rlhf_harmless_test/test.jsonl.gz", "Anthropic/hh-rlhf"))


class LLMBar(Dataset):
    """Which of two outputs follows an instruction (Zeng et al. 2024); in the adversarial parts the worse looks better.

    part: natural, or adversarial_ and gptinst, gptout, manual or neighbor.
    """

    def __init__(self, *, part: str = "natural", path: str = "") -> None:
        file = path or here(f"llmbar/{part}.json", "")
        if not file:
            raise FieldMistake("task", "llmbar is read from RLLAB_DATA/llmbar, or say where its .json is with `path`")
        super().__init__(file, columns={"input": "prompt", "output_1": "chosen", "output_2": "rejected"})

    def row(self, index: int, split: str) -> dict[str, Any]:
        """`prompt`, `chosen` and `rejected`."""
        row = super().row(index, split)
        outputs = [row["chosen"], row["rejected"]] if row["label"] == 1 else [row["rejected"], row["chosen"]]
        said = [[{"role": "assistant", "content": text}] for text in outputs]
        return {"prompt": [{"role": "user", "content": row["prompt"]}], "chosen": said[0], "rejected": said[1]}
