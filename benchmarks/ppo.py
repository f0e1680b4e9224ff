"""PPO on CartPole-v1 beside Stable-Baselines3 or sbx: environment steps per CPU second, at the peer's settings.

python3 -m venv .venv.peers && .venv.peers/bin/pip install -r benchmarks/requirements.txt
python3 -m venv .venv.sbx && .venv.sbx/bin/pip install -r benchmarks/requirements-sbx.txt
./lab python benchmarks/ppo.py            Stable-Baselines3
./lab python benchmarks/ppo.py --sbx      sbx
"""

from pairs import Case, compare, parse

SETTINGS = {
    "num_envs": 8,
    "num_steps": 256,  # 2,048 environment steps in a round, as with the peer's single environment
    "update_epochs": 10,
    "num_minibatches": 32,  # of 64 entries
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "optim": {"lr": 3e-4, "eps": 1e-5, "max_grad_norm": 0.5, "weight_decay": 0.0},
    "hidden": [64, 64],
}

if __name__ == "__main__":
    compare(Case("ppo", "cartpole-ppo", SETTINGS, 2048, 4, 16, "PPO", "CartPole-v1"), parse(__doc__ or "").parse_args())
