"""The verb that shows what a run does in its environment."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from rllab.cli.app import LOOK, Runs, app
from rllab.core.errors import Mistake

verb = partial(app.command, rich_help_panel=LOOK)


@verb()
def watch(
    run: Annotated[str, typer.Argument(help="A run that acts in an environment: RUN, RUN@STEP, last.")],
    episodes: Annotated[int, typer.Option(min=1, max=1000, help="Episodes of the video.")] = 3,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1001, help="The seed of the first; each has the next.")] = 0,
    video: Annotated[str, typer.Option(help="Write them to this file, .mp4 or .gif, without a browser.")] = "",
    port: Annotated[int, typer.Option(help="The port; by default the first free one from 8000 on.")] = 0,
    runs: Runs = Path("runs"),
) -> None:
    """Watch a run's greedy episodes, in a browser or as a video.

    The episodes are those of the lab's evaluation: with the wrappers of the recipe and the run's running statistics.
    Without --video the board is served, and its first page is that of the run's episodes.
    """
    from urllib.parse import urlencode

    from rllab.core.run import parse_run
    from rllab.core.runs import find_run

    name, step = parse_run(run)
    folder = find_run(name, runs)
    if "env" not in folder.plain():
        raise Mistake(f"{name} acts in no environment; rllab play plays board games, rllab chat talks to a model")
    if video:
        from rllab.board.loaded import LoadedRun
        from rllab.board.video import check_video, write_video

        check_video(Path(video))
        write_video(LoadedRun(folder.path), step, range(seed, seed + episodes), Path(video), print)
        print(f"{video} is written", file=sys.stderr)
        return
    from rllab.board.serve import serve

    shown = {"run": folder.path.name, "seed": seed} | ({} if step is None else {"checkpoint": step})
    serve(folder.path.parent, port, f"watch?{urlencode(shown)}", say=lambda line: print(line, flush=True))
    sys.exit(0)
