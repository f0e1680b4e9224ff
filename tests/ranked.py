"""One rank of several: python ranked.py ALGORITHM FOLDER [key=value ...]. The environment names the rank."""

import sys
from pathlib import Path

import torch.distributed as dist
from conftest import TESTS, TOY

from rllab.core.errors import RllabError
from rllab.core.recipe import read_recipe
from rllab.core.trainer import Trainer

algo, folder, *words = sys.argv[1:]
stop_after = next((int(w.partition("=")[2]) for w in words if w.startswith("stop_after=")), None)
words = [w for w in words if not w.startswith("stop_after=")]
try:
    trainer = Trainer(read_recipe(TOY.format(algo=algo), "toy.yaml", TESTS, "toy", words), Path(folder))
    for row in trainer:
        if row["step"] == stop_after and trainer.engine.rank == 1:
            trainer.stop.reason = "only rank 1 was told"
except RllabError as error:
    print(f"error: {error}")
    sys.exit(error.exit_code)
print(trainer.row)
if dist.is_initialized():
    dist.destroy_process_group()
