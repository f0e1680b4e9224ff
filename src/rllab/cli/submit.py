"""The verb that gives recipes to the scheduler of a cluster."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from rllab.cli.app import TRAIN, app
from rllab.core.errors import Mistake
from rllab.core.messages import visible

RUNS = Path("runs")  # in which jobs train


class Submits(TyperCommand):
    """A verb with options of another program, and `--` before the words of rllab."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--" not in args:
            if not args or {"-h", "--help"} & set(args):
                return super().parse_args(ctx, args)
            raise Mistake(
                "put -- between what the scheduler reads and the recipe: rllab submit slurm/gpu.sbatch --time=8:00:00 "
                "-- recipes/grpo.yaml optim.lr=1e-6"
            )
        at = args.index("--")
        own = [w for w in args[:at] if w in ("--dry-run", "-h", "--help")]
        before = [w for w in args[:at] if w not in own]
        if not before or before[0].startswith("-"):
            raise Mistake("the job script comes first: rllab submit slurm/gpu.sbatch --time=8:00:00 -- RECIPE")
        ctx.meta["flags"], ctx.meta["words"] = before[1:], args[at + 1 :]
        return super().parse_args(ctx, [before[0], *own])


@app.command(cls=Submits, rich_help_panel=TRAIN)
def submit(
    context: typer.Context,
    script: Annotated[
        Path,
        typer.Argument(
            help="slurm/gpu.sbatch, slurm/bu.qsub, or a script made of one; then options of sbatch or qsub, then -- "
            "and recipes, settings, or another verb.",
            metavar="SCRIPT [OPTIONS OF SBATCH OR QSUB] -- RECIPE... [KEY=VALUE...]",
        ),
    ],
    dry: Annotated[bool, typer.Option("--dry-run", help="Print the commands; queue nothing.")] = False,
) -> None:
    """Queue recipes on a cluster, after checking them.

    A run:NAME that a recipe needs and that is not trained yet becomes a job of its own, and the recipe's job waits for
    it. A range of seeds, seed=0..4, becomes an array. The commands are printed as they are run. If the scheduler
    refuses a job, those before it are cancelled.
    """
    from rllab.cluster.schedulers import scheduler_of
    from rllab.cluster.submit import VERBS, Queue, job_environment, plan

    words = context.meta["words"]
    verb, rest = (words[0], words[1:]) if words and words[0] in VERBS else ("train", words)
    commands: Any = typer.main.get_command(app)
    given = commands.commands[verb].make_context(verb, list(rest)).params  # it refuses what the verb would refuse
    env = dict(os.environ)
    scheduler = scheduler_of(script, context.meta["flags"])
    os.environ.update(job_environment(scheduler))
    from rllab.cluster.checks import check_disk, check_gpus, check_recipes, check_rounds

    chain = plan(verb, rest, given, scheduler.array, RUNS)
    for name, folder in chain.made.items():
        _say(f"run:{name} is made already, in {folder.path}")
    if not chain.jobs:
        _say("nothing is left to queue")
    for name, folder in chain.unfinished.items():
        _say(f"run:{name} is not finished; jobs use the newest checkpoint that {folder.path} has when they begin")
    disk = check_recipes(chain.jobs, RUNS, _say, scheduler.request())
    check_disk(disk, RUNS)
    check_gpus(scheduler, _say)
    check_rounds(chain.jobs, scheduler, RUNS, _say)
    Queue(scheduler, env, lambda line: print(line, flush=True), dry=dry).add_all(chain.jobs)


def _say(line: str) -> None:
    print(f"note: {visible(line)}", file=sys.stderr, flush=True)
