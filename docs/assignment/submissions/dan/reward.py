"""A reward function, not finished."""


def reward(prompts, completions, **columns):
    return [score(prompt, text) for prompt, text in zip(prompts, completions)]
