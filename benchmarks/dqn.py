"""DQN on CartPole-v1 beside Stable-Baselines3 or CleanRL: environment steps per CPU second, at the peer's settings.

python3 -m venv .venv.peers && .venv.peers/bin/pip install -r benchmarks/requirements.txt
git clone https://github.com/vwxyzjn/cleanrl                  fe8d8a03 was measured
./lab python benchmarks/dqn.py                      Stable-Baselines3, an update of 32 transitions in 4 steps
./lab python benchmarks/dqn.py --cleanrl cleanrl    CleanRL's dqn.py, an update of 128 transitions in 10 steps
"""

from pathlib import Path

from pairs import CLEANRL, Case, compare, parse

COMMON = {"double": False, "n_step": 1, "epsilon_end": 0.05}
AT_SB3S = COMMON | {
    "hidden": [64, 64],
    "optim": {"lr": 1e-4, "max_grad_norm": 10.0},
    "huber": True,
    "batch_size": 32,
    "buffer_size": 1_000_000,
    "learning_starts": 100,
    "num_envs": 64,
    "train_freq": 8,  # 512 environment steps in a round
    "gradient_steps": 128,  # one update in 4 steps
    "target_update_interval": 2_500,  # every 10,000 steps
    "epsilon_steps": 10_000,
}
AT_CLEANRLS = COMMON | {
    "hidden": [120, 84],
    "optim": {"lr": 2.5e-4},
    "huber": False,
    "batch_size": 128,
    "buffer_size": 10_000,
    "learning_starts": 10_000,
    "num_envs": 128,
    "train_freq": 5,  # 640 environment steps in a round
    "gradient_steps": 64,  # one update in 10 steps
    "target_update_interval": 50,  # every 500 steps
    "epsilon_steps": 50_000,
}

if __name__ == "__main__":
    parser = parse(__doc__ or "")
    parser.add_argument("--cleanrl", metavar="FOLDER", help="CleanRL's repository, in place of Stable-Baselines3")
    args = parser.parse_args()
    if args.cleanrl:
        program = [CLEANRL, str(Path(args.cleanrl).resolve()), "dqn.py", "10"]  # an update in 10 steps
        case = Case("dqn", "cartpole", AT_CLEANRLS, 640, 20, 156, "DQN", "CartPole-v1")
        compare(case, args, "cleanrl", lambda steps, seed: [*program, "--total-timesteps", steps, "--seed", seed])
    else:
        compare(Case("dqn", "cartpole", AT_SB3S, 512, 30, 196, "DQN", "CartPole-v1"), args)
