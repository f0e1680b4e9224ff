"""Tunes the room's present controller by random search: `python -m rllab_envs.control.cooling.tune`, two minutes.

Every candidate runs in the same two training scenarios of a day. Candidates are drawn over wide ranges first, then
around the best. The score is the power in kW, plus 40 kW for each percent of rack-time above the limit: one that
is as safe as it is cheap. Training scenarios have seeds from 1,000,000; evaluation draws its seeds from a run's.
"""

import argparse

import numpy as np
from gymnasium.vector import AutoresetMode

from rllab_envs.control.batched import Floats
from rllab_envs.control.cooling.env import Cooling
from rllab_envs.control.cooling.pid import PID

LOW = np.array([0.005, 0.0002, 0.005, 0.0002, 0.5, 21.8])  # of p and i of the valve and of the fan, `below`, set point
HIGH = np.array([0.5, 0.05, 0.5, 0.05, 7.0, 25.5])
STEPS, SEED, PRICE = 2880, 1_000_000, 4000.0


def measure(controller: PID, seeds: list[int], steps: int) -> tuple[Floats, Floats]:
    """Power in kW [N] and share of rack-time above the limit [N] of a controller in N rooms with these seeds."""
    room = Cooling(len(seeds), None, AutoresetMode.DISABLED)
    obs, _ = room.reset(seed=list(seeds))
    kw, over, begins = np.zeros(len(seeds)), np.zeros(len(seeds)), np.ones(len(seeds), np.bool_)
    for t in range(steps):
        obs, reward, _, _, info = room.step(controller.act(obs, begins & (t == 0)).astype(np.float32))
        kw -= reward / steps
        over += info["over"] / steps
    return kw, over


def score(candidates: Floats, steps: int = STEPS) -> tuple[Floats, Floats, Floats]:
    """(scores, kW, shares over the limit) [K] of candidates [K, 6] over the training scenarios."""
    both = np.repeat(candidates, 2, 0)
    controller = PID(len(both), both[:, 5], both[:, :5].T)
    kw, over = (x.reshape(-1, 2).mean(1) for x in measure(controller, [SEED, SEED + 1] * len(candidates), steps))
    return kw + PRICE * over, kw, over


def tune(rng: np.random.Generator, tries: int = 300, rounds: int = 4) -> tuple[Floats, float, float]:
    """Returns (the best candidate [6], its kW, its share over the limit)."""
    low, high = np.log(LOW), np.log(HIGH)
    candidates = np.exp(rng.uniform(low, high, (tries, 6)))
    best, spread = (np.inf, 0.0, 0.0, candidates[0]), 0.35
    for _ in range(rounds):
        scores, kw, over = score(candidates)
        i = int(scores.argmin())
        if scores[i] < best[0]:
            best = (float(scores[i]), float(kw[i]), float(over[i]), candidates[i])
        print(f"{best[1]:.2f} kW, {100 * best[2]:.3f} % over: {np.round(best[3], 4).tolist()}", flush=True)
        steps = rng.standard_normal((tries // 2, 6)) * spread * (high - low) / 4
        candidates, spread = np.exp(np.clip(np.log(best[3]) + steps, low, high)), spread * 0.7
    return best[3], best[1], best[2]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    tune(np.random.default_rng(parser.parse_args().seed))
