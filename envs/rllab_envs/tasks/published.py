"""Published datasets as tasks, read from the folder RLLAB_DATA if they are there, else from the Hugging Face hub."""

import os
import re
from array import array
from pathlib import Path
from typing import Any

from rllab.core.errors import FieldMistake
from rllab_envs.tasks.dataset import Dataset
from rllab_envs.tasks.tables import SPLITS

ASK = "Think step by step, and end with #### and the number."
ASK_TAGS = "Think step by step between <think> and </think>, and end with #### and the number."
ASK_BOX = "Think step by step, and put the final answer into \\boxed{}."


def here(name: str, otherwise: str) -> str:
    """Returns the file or folder `name` below RLLAB_DATA if it exists, else `otherwise`, such as a name of the hub."""
    local = Path(os.environ.get("RLLAB_DATA", "/nowhere")) / name
    return str(local) if local.exists() else otherwise


class GSM8K(Dataset):
    """Grade-school word problems with worked solutions (Cobbe et al. 2021); solutions end in `#### 72`.

    think: the prompt asks for thinking between tags, as for DeepSeek-R1, and the worked solutions stand between them.
    """

    def __init__(self, *, path: str = "", think: bool = False) -> None:
        self._think = think
        where = path or here("gsm8k", "openai/gsm8k")
        super().__init__(where, config="main", columns={"question": "prompt", "answer": "completion"})

    def row(self, index: int, split: str) -> dict[str, Any]:
        """Returns a row: `prompt` and `completion` as conversations, `target` and `kind`."""
        row = super().row(index, split)
        solution = re.sub(r"<<[^>]*>>", "", row["completion"])  # without the calculator annotations
        steps, mark, target = solution.rpartition("####")
        completion = f"<think>{steps.strip()}</think>\n{mark}{target}" if self._think else solution
        return {
            "prompt": [{"role": "user", "content": f"{row['prompt']}\n{ASK_TAGS if self._think else ASK}"}],
            "completion": [{"role": "assistant", "content": completion}],
            "target": target.strip().replace(",", ""),
            "kind": "number",
        }


class MATH(Dataset):
    """Competition problems with worked solutions in LaTeX (Hendrycks et al. 2021); the last `\\boxed{}` is the answer.

    path: a file of rows with `problem`, `solution` and `answer`, or a folder with files named by their split. All rows
    of a single file, such as the 500 problems of Lightman et al. 2024, are the test split.

    Raises:
        FieldMistake: a row is broken or lacks its answer.
    """

    def __init__(self, *, path: str = "") -> None:
        where = path or here("math500/math500.jsonl", "HuggingFaceH4/MATH-500")
        super().__init__(where, columns={"problem": "prompt", "solution": "completion"})
        rows = (Dataset.row(self, i, split) for split in SPLITS for i in range(self.size(split)))
        if not all(row.get("answer") for row in rows):
            raise FieldMistake("task", f"{where}: a row has `problem`, `solution` and `answer`; some lack the answer")

    def row(self, index: int, split: str) -> dict[str, Any]:
        """Returns a row: `prompt`, `completion`, `target`, `kind`, and `subject` and `level` if the file has them."""
        row = super().row(index, split)
        return {
            "prompt": [{"role": "user", "content": f"{row['prompt']}\n{ASK_BOX}"}],
            "completion": [{"role": "assistant", "content": row["completion"]}],
            "target": row["answer"],
            "kind": "latex",
            **{k: row[k] for k in ("subject", "level") if k in row},
        }

    def _hold_out(self) -> None:
        if self.size("train") and self.size("test"):
            super()._hold_out()
        else:
            self._rows = {"train": ("train", array("q")), "test": self._rows["test" if self.size("test") else "train"]}


class HHRLHF(Dataset):
    """Pairs of replies, of which people found the chosen one less harmful (Bai et al. 2022)."""

    def __init__(self, *, path: str = "") -> None:
        super().__init__(path or here("hh_rlhf_harmless_test/test.jsonl.gz", "Anthropic/hh-rlhf"))


class LLMBar(Dataset):
    """Pairs of outputs, of which the chosen one follows the instruction better (Zeng et al. 2024).

    In the adversarial parts the rejected output looks better on the surface.

    part: natural, adversarial_gptinst, adversarial_gptout, adversarial_manual or adversarial_neighbor. path: a .json
    file in place of RLLAB_DATA/llmbar.

    Raises:
        FieldMistake: there is no such file.
    """

    def __init__(self, *, part: str = "natural", path: str = "") -> None:
        file = path or here(f"llmbar/{part}.json", "")
        if not file:
            raise FieldMistake("task", "llmbar is read from RLLAB_DATA/llmbar; or set `path` to its .json file")
        super().__init__(file, columns={"input": "prompt", "output_1": "chosen", "output_2": "rejected"})

    def row(self, index: int, split: str) -> dict[str, Any]:
        """Returns a row: `prompt`, `chosen` and `rejected`, each as a conversation."""
        row = super().row(index, split)
        outputs = [row["chosen"], row["rejected"]] if row["label"] == 1 else [row["rejected"], row["chosen"]]
        chosen, rejected = ([{"role": "assistant", "content": text}] for text in outputs)
        return {"prompt": [{"role": "user", "content": row["prompt"]}], "chosen": chosen, "rejected": rejected}
