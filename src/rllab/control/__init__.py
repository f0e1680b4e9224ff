"""What the algorithms for Gymnasium environments share: environments, replay, rollouts, small networks."""
