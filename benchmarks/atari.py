"""DQN on Atari's Breakout in rllab and in CleanRL's dqn_atari.py: CPU time of four environment steps and one update.

    git clone https://github.com/vwxyzjn/cleanrl                  fe8d8a03 was measured
    python3 -m venv .venv.peers && .venv.peers/bin/pip install -r benchmarks/requirements.txt
    ./lab python benchmarks/atari.py --cleanrl cleanrl            five alternated pairs
    ./lab python benchmarks/atari.py --memory                     bytes of a transition in the replay buffer

Both sides have the same network, batch size, optimizer and settings, one thread, and act by their network in 99 of 100
steps. Each is measured between an early update and its last, so imports, set-up and compiling are left out.

`--memory` fills a replay buffer with stacks of pictures. It prints what the process has grown by for each transition
since a fifth of the buffer was full, and beside it what Stable-Baselines3's buffer takes by its source.
"""

import argparse
import json
import re
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from pairs import CLEANRL, theirs

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = {
    "env_kwargs": {"game": "breakout", "use_fire_reset": True, "num_threads": 1}
    | {"episodic_life": True, "reward_clipping": True},
    "buffer_size": 20_000,
    "learning_starts": 500,
    "epsilon_start": 0.01,
    "epsilon_end": 0.01,
    "eval_every": 0,
    "save_every": 0,
    "headline_episodes": 1,
    "eval_max_steps": 1,
    "device": "cpu",
    "threads": 1,
    "expect": {},
}


def ours(updates: int, seed: int) -> float:
    """Returns the milliseconds of CPU time of four environment steps and one update."""
    from rllab import Trainer
    from rllab.core.recipe import load_recipe

    plain = load_recipe("breakout").plain
    per_round, starts = plain["gradient_steps"], int(SETTINGS["learning_starts"])  # type: ignore[call-overload]
    before = -(-starts // (plain["num_envs"] * plain["train_freq"]))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*eval_max_steps")
        times = []
        for _ in Trainer("breakout", folder, **SETTINGS, total_steps=before + 2 + -(-updates // per_round), seed=seed):
            times.append(time.process_time())
    first = before + 1  # two rounds after the first update
    return 1000 * (times[-2] - times[first]) / (len(times) - 2 - first) / per_round


def peer(python: str, cleanrl: str, updates: int, seed: int) -> float:
    """Returns the same of CleanRL."""
    starts = int(SETTINGS["learning_starts"])  # type: ignore[call-overload]
    words = [f"--total-timesteps={starts + 4 * (updates + 21)}", f"--learning-starts={starts}", "--buffer-size=20000"]
    words += ["--start-e=0.01", "--end-e=0.01", "--no-cuda", f"--seed={seed}"]
    steps = theirs([python, "-c", CLEANRL, str(Path(cleanrl).resolve()), "dqn_atari.py", "4", *words])
    return 4000 / steps


def compare(args: argparse.Namespace) -> None:
    """Prints each pair, and the median of the ratios."""
    if not Path(args.peers).is_file():
        sys.exit(f"{args.peers} does not exist: make it from benchmarks/requirements.txt, or name another with --peers")
    updates, pairs = (40, 1) if args.quick else (args.updates, args.pairs)
    own, others = [], []
    for seed in range(1, pairs + 1):
        others.append(peer(args.peers, args.cleanrl, updates, seed))
        own.append(ours(updates, seed))
        print(f"pair {seed}: ours {own[-1]:.1f} ms, CleanRL {others[-1]:.1f} ms", flush=True)
    ratios = [b / a for a, b in zip(own, others, strict=True)]
    report("dqn-atari-cleanrl", ours=own, peer=others, ratio=ratios)


def report(name: str, **columns: list[float]) -> None:
    """Prints medians, and the range of the last column, as JSON."""
    result: dict[str, Any] = {"name": name} | {k: round(statistics.median(v), 2) for k, v in columns.items()}
    last = list(columns.values())[-1]
    print(json.dumps(result | {"spread": [round(min(last), 2), round(max(last), 2)]}))


def resident() -> int:
    """The resident memory of this process in bytes."""
    line = re.search(r"^VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    assert line is not None
    return 1024 * int(line[1])


def memory(rows: int) -> None:
    """Fills a replay buffer with pictures of noise, in games of 1000 steps, and prints bytes per transition."""
    import numpy as np

    from rllab.control.replay import Replay

    num_envs, rng = 8, np.random.default_rng(0)
    replay = Replay(rows, num_envs)
    blank = np.zeros((num_envs, 3, 84, 84), np.uint8)
    next_obs = blank
    start = at_first = 0
    for t in range(-(-rows // num_envs)):
        picture = rng.integers(0, 256, (num_envs, 1, 84, 84), np.uint8)
        obs = np.concatenate([blank, picture], 1) if t % 1000 == 0 else next_obs
        next_obs = np.concatenate([obs[:, 1:], np.roll(obs[:, :1], t, 3) ^ 1], 1)
        over = np.full(num_envs, t % 1000 == 999)
        step = {"obs": obs, "next_obs": next_obs, "action": np.zeros(num_envs, np.int64), "reward": np.zeros(num_envs)}
        replay.add(step | {"terminated": over, "truncated": ~over & False})
        replay.sample(rng, 32)
        if not start and len(replay) > rows // 5:  # what every process has is in memory by then
            start, at_first = resident(), len(replay)
    grown = (resident() - start) / (len(replay) - at_first)
    sb3 = 2 * 4 * 84 * 84 + 8 + 4 + 4 + 4  # two stacks of pictures; action, reward, end and time limit
    print(f"{len(replay):,} transitions: the process has grown by {grown:,.0f} bytes for each,", end=" ")
    print(f"{grown / 1e3:.2f} GB for a million; in all it has {resident() / 1e9:.2f} GB")
    print(f"Stable-Baselines3 with optimize_memory_usage: {sb3 - 4 * 84 * 84:,} bytes; without it {sb3:,}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="40 updates, one pair")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--updates", type=int, default=200, help="measured updates of each side")
    parser.add_argument("--cleanrl", metavar="FOLDER", default="cleanrl", help="a clone of CleanRL")
    parser.add_argument("--peers", default=str(ROOT / ".venv.peers/bin/python"), help="the Python that has the peers")
    parser.add_argument("--memory", action="store_true", help="measure the replay buffer")
    parser.add_argument("--rows", type=int, default=200_000, help="its transitions")
    args = parser.parse_args()
    if args.memory:
        memory(args.rows)
        return
    from rllab.core.machine import processor

    print(processor())
    compare(args)


if __name__ == "__main__":
    main()
