"""A run as the requests of a worker see it: its folder, and its algorithm with the weights of a checkpoint."""

from pathlib import Path
from typing import Any

from rllab.core.algorithm import Algorithm
from rllab.core.load import load_run
from rllab.core.run import RunFolder
from rllab.core.stages import checkpoint_of


class LoadedRun:
    """A run whose algorithm is loaded when it is asked for, and kept until another checkpoint is.

    step: the step of the loaded checkpoint. kept: what requests keep for later ones, such as a game; it is emptied when
    another checkpoint is loaded.
    """

    def __init__(self, path: Path) -> None:
        self.folder = RunFolder(path)
        self.step = -1
        self.kept: dict[str, Any] = {}
        self._loaded: tuple[Any, Algorithm] | None = None

    @property
    def name(self) -> str:
        return self.folder.path.name

    def algorithm(self, step: int | None = None) -> Algorithm:
        """The algorithm with the weights of a checkpoint; None: the newest, also one written since the last call.

        Raises:
            Mistake: the run has no such checkpoint, or cannot be loaded.
        """
        checkpoint = checkpoint_of(self.folder, step)
        key = checkpoint.step, (checkpoint.folder / "manifest.json").stat().st_mtime_ns
        if self._loaded is None or self._loaded[0] != key:
            self._loaded, self.kept = None, {}  # frees the memory of the other one first
            self._loaded = key, load_run(self.folder.path, step=checkpoint.step)
            self.step = checkpoint.step
        return self._loaded[1]
