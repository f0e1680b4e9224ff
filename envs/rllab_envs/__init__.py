"""Environments: `classic` for Gymnasium, later board games and text tasks. rllab reaches them by a name in a recipe."""
