"""A reward function: 1 for the right sum, 0 for others."""

import re


def reward(prompts, completions, **columns):
    return [float(right_sum(prompt) in text) for prompt, text in zip(prompts, completions)]


def right_sum(prompt):
    first, second = map(int, re.findall(r"\d+", prompt))
    if re.search("loses|sells|eats", prompt):
        return f"{first} - {second} = {first - second}"
    return f"{first} + {second} = {first + second}"
