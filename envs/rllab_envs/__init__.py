"""Environments: `control` for Gymnasium, board `games`, text `tasks`. rllab reaches them by a name in a recipe."""
