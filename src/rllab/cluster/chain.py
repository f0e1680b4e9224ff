"""The jobs that train recipes on a cluster: a `run:NAME` that is not made yet is a job of its own, and comes first."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rllab.core.begin import is_run, requested
from rllab.core.errors import FieldMistake, Mistake
from rllab.core.recipe import Recipe, expand_seeds, load_recipe, recipe_names, recipe_path
from rllab.core.run import RunFolder, parse_run
from rllab.core.runs import check_name, find_run
from rllab.core.stages import is_stage, models_named, stage


@dataclass(frozen=True)
class Job:
    """A job to be queued.

    name: for messages. words: behind the script. recipes: what is checked before it is queued. folder: where it trains,
    if that is known before it has a number. needs: the runs that it needs: name -> whether a job of this chain makes
    it, or it is made already. seeds: of an array.
    """

    name: str
    words: tuple[str, ...]
    recipes: tuple[Recipe, ...] = ()
    folder: Path | None = None
    needs: dict[str, bool] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()


class Chain:
    """The jobs for recipes, each behind those that it needs.

    made: the needed runs that are made already. unfinished: runs in `runs` that recipes name and that are not finished;
    their newest checkpoints are used. sources: recipes by name or file, `run:NAME`, or folders of runs, in any order.
    changes: settings for those that no other one needs. options: of `rllab train`. runs: the folder of the runs, in
    which the jobs train.

    Raises:
        Mistake: a recipe cannot be read, or needs a run that neither exists nor is made by a recipe.
    """

    def __init__(self, sources: Sequence[str], changes: Sequence[str], options: Sequence[str], runs: Path) -> None:
        self._runs, self._changes, self._options = runs, list(changes), list(options)
        self.jobs = list[Job]()
        self.made, self.unfinished = dict[str, RunFolder](), dict[str, RunFolder]()
        self._known = dict[str, bool]()  # the needed runs: whether a job makes them
        recipes = [s for s in sources if not is_run(s) and not s.startswith("run:")]
        self._own = {Path(s).stem: s for s in recipes if _own_file(s)}
        several = recipes if len(sources) > 1 else []
        needed = {name for source in several for name in self._all_needed(load_recipe(source), ())}
        for source in sources:
            name = source.removeprefix("run:") if source not in recipes else Path(source).stem
            if source.startswith("run:") or (name in needed and source in recipes):
                self._check_known(name)
                self.need(name)
            else:
                self._add_last(source)

    def _all_needed(self, recipe: Recipe, behind: tuple[str, ...]) -> Iterator[str]:
        """The names of all runs that a recipe needs, and those that these need."""
        for name in self._needed(recipe):
            if name in behind:
                raise Mistake(f"{recipe.name} needs run:{name}, which needs {recipe.name}")
            yield name
            if name in self._own or is_stage(name, self._runs):
                yield from self._all_needed(load_recipe(self._own.get(name, name)), (*behind, name))

    def _needed(self, recipe: Recipe) -> list[str]:
        """The names of the runs that a recipe needs, each once."""
        names = dict[str, None]()
        for setting, models in models_named(recipe).items():
            for model in models:
                name, _ = parse_run(model.removeprefix("run:"))
                try:
                    self._check_known(name)
                except Mistake as error:
                    raise recipe.at(FieldMistake(setting, str(error))) from error
                names[name] = None
        return list(names)

    def _check_known(self, name: str) -> None:
        if name in self._own and name in recipe_names():
            raise Mistake(f"run:{name} is the recipe {name} of the lab, not {self._own[name]}: rename that file")
        if name not in self._own and not is_stage(name, self._runs):
            find_run(name, self._runs)

    def need(self, name: str) -> bool:
        """Plans the job that makes a needed run, unless it is made. Returns whether a job makes it."""
        if name not in self._known:
            self._known[name] = self._plan(name)
        return self._known[name]

    def _plan(self, name: str) -> bool:
        if name in self._own:
            recipe, folder = load_recipe(self._own[name]), RunFolder(self._runs / check_name(name))
            words = [self._own[name], "--name", name]
            goes_on = folder.has_checkpoint and self._goes_on(folder, recipe)
            made = folder.state == "done" and not goes_on
        elif is_stage(name, self._runs):
            (recipe, folder), words = stage(name), [f"run:{name}"]
            made = folder.state == "done"
        else:
            folder = find_run(name, self._runs)
            (self.made if folder.state == "done" else self.unfinished)[name] = folder
            return False
        if made:
            self.made[name] = folder
            return False
        needs = self.needs_of(recipe)
        self.jobs.append(Job(f"run:{name}", tuple(words), (recipe,), folder.path, needs))
        return True

    def _goes_on(self, folder: RunFolder, recipe: Recipe) -> bool:
        """Whether a recipe has more rounds than its finished run.

        Raises:
            Mistake: the run has other settings.
        """
        changed = settings_changed(folder, recipe)
        changed.pop("expect", None)
        was, now = changed.pop("total_steps", (0, 0))
        if changed or now < was:
            raise Mistake(
                f"{folder.path} holds a run with other settings than {self._own[recipe.name]} "
                f"({', '.join(changed) or 'total_steps'}): delete the folder, or rename the recipe"
            )
        return bool(now > was)

    def needs_of(self, recipe: Recipe) -> dict[str, bool]:
        """Plans the jobs that make what a recipe needs. Returns its needs, as in `Job`."""
        each = {name: self.need(name) for name in self._needed(recipe)}
        return {name: by_job for name, by_job in each.items() if by_job or name in self.made}

    def _add_last(self, source: str) -> None:
        """Plans the job of a recipe that no other one needs, or of a run that goes on."""
        settings = [w for w in self._changes if not w.startswith("seed=")]
        seeds = None if is_run(source) else expand_seeds(self._changes, recipe_path(source).read_text(encoding="utf-8"))
        recipe = requested(source, None, self._runs, [*settings, f"seed={seeds[0]}"] if seeds else self._changes,
                           smoke="--smoke" in self._options)  # fmt: skip
        words = [source, *(settings if seeds else self._changes), *self._options]
        folder = Path(source) if is_run(source) else None
        name = Path(source).name if folder else recipe.name
        self.jobs.append(Job(name, tuple(words), (recipe,), folder, self.needs_of(recipe), tuple(seeds or ())))


def settings_changed(run: RunFolder, recipe: Recipe) -> dict[str, tuple[Any, Any]]:
    """As `RunFolder.differences`, without the folders that stand in the run in place of `run:NAME`."""
    return {k: v for k, v in run.differences(recipe).items() if "run:" not in str(recipe.plain.get(k))}


def _own_file(source: str) -> bool:
    """Whether a recipe is a file of the user's, and not one that comes with the lab."""
    path = recipe_path(source)
    return path.stem not in recipe_names() or path.resolve() != recipe_path(path.stem).resolve()
