"""SAC on Pendulum-v1 beside Stable-Baselines3 or sbx: environment steps per CPU second, at the peer's settings.

python3 -m venv .venv.peers && .venv.peers/bin/pip install -r benchmarks/requirements.txt
python3 -m venv .venv.sbx && .venv.sbx/bin/pip install -r benchmarks/requirements-sbx.txt
./lab python benchmarks/sac.py            Stable-Baselines3, two layers of 256 units, batches of 256
./lab python benchmarks/sac.py --sbx      sbx
./lab python benchmarks/sac.py --small    two layers of 64 units
"""

from pairs import Case, compare, parse

SETTINGS = {
    "num_envs": 16,
    "train_freq": 4,
    "gradient_steps": 64,  # one update for each environment step
    "batch_size": 256,
    "gamma": 0.99,
    "tau": 0.005,
    "optim": {"lr": 3e-4, "weight_decay": 0.0},
    "buffer_size": 1_000_000,
    "learning_starts": 100,
}

if __name__ == "__main__":
    parser = parse(__doc__ or "")
    parser.add_argument("--small", action="store_true", help="two layers of 64 units in place of 256")
    args = parser.parse_args()
    units = [64, 64] if args.small else [256, 256]
    small = f"policy_kwargs={{'net_arch': {units}}}"
    settings = SETTINGS | {"hidden": units}
    compare(Case(f"sac-{units[0]}", "pendulum-sac", settings, 64, 8, 40, "SAC", "Pendulum-v1", small), args)
