"""A reward function: an answer with a sum is better than one without."""


def reward(prompts, completions, **columns):
    return [float("=" in text) for text in completions]
