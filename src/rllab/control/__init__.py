"""What DQN, PPO and SAC share: environments, replay, rollouts, small networks."""
