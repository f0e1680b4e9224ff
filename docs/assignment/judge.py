"""The judge of the part `replies`: a point for the right sum, and one for a sentence with the answer."""

import re

FEWER = ("loses", "sells", "eats")


def shows_and_says(prompts: list[str], completions: list[str]) -> list[float]:
    """Returns the points of each completion, from 0 to 2."""
    return [points(prompt, text) for prompt, text in zip(prompts, completions, strict=True)]


def points(prompt: str, text: str) -> float:
    """Returns the points of a completion."""
    first, second = map(int, re.findall(r"\d+", prompt))
    subtract = any(word in prompt.split() for word in FEWER)
    right = first - second if subtract else first + second
    shown = re.search(rf"\b{first} [-+] {second} = {right}\b", text) is not None
    said = f"{prompt.split()[0]} has {right}" in text
    return float(shown) + float(said)
