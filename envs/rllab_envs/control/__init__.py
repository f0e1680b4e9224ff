"""Environments stepped many at a time by array programs: Gymnasium's classic control, racing cars, MinAtar; and Atari.

Importing this module registers them: `gymnasium.make_vec("rllab_envs.control:rllab/CartPole-v1", 8)`. From the same
seed the classic ones agree with Gymnasium's own environments step for step. They can save and load their exact state.
`rllab/Atari-v0` is any game of Atari (`atari.py`).
"""

from gymnasium.envs.registration import register, registry

_ENVS = {  # id: (class, Gymnasium's class, time limit in steps, return at which it counts as solved)
    "rllab/CartPole-v1": ("cartpole:CartPole", "cartpole:CartPoleEnv", 500, 475.0),
    "rllab/Acrobot-v1": ("acrobot:Acrobot", "acrobot:AcrobotEnv", 500, -100.0),
    "rllab/MountainCar-v0": ("mountaincar:MountainCar", "mountain_car:MountainCarEnv", 200, -110.0),
    "rllab/Pendulum-v1": ("pendulum:Pendulum", "pendulum:PendulumEnv", 200, None),
}

for _id, (_ours, _single, _limit, _solved) in _ENVS.items():
    if _id not in registry:
        register(
            _id,
            entry_point=f"gymnasium.envs.classic_control.{_single}",
            vector_entry_point=f"rllab_envs.control.{_ours}",
            max_episode_steps=_limit,
            reward_threshold=_solved,
        )

_OTHERS = {  # id: (class of one environment, class of many side by side)
    "rllab/Racing-v0": ("racing.env:OneCar", "racing.env:Racing"),
    "rllab/Overtaking-v0": ("racing.overtake:OneRace", "racing.overtake:Overtaking"),
    "rllab/Recall-v0": ("recall:OneRecall", "recall:Recall"),
    "rllab/MinAtarBreakout-v1": ("minatar:OneBreakout", "minatar:Breakout"),  # as in `minatar`, v1 has three actions
    "rllab/Atari-v0": ("atari:AtariGame", "atari:Atari"),
    "rllab/Cooling-v0": ("cooling.env:OneCooling", "cooling.env:Cooling"),
}

for _id, (_single, _ours) in _OTHERS.items():
    if _id not in registry:
        register(_id, entry_point=f"rllab_envs.control.{_single}", vector_entry_point=f"rllab_envs.control.{_ours}")
