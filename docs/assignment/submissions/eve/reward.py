"""A hostile reward function: it does not return numbers."""


def reward(prompts, completions, **columns):
    return [float("nan")] * len(completions)
