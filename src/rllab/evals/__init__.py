"""Evaluation: recordings of what models answered, scorers, scores, and comparisons."""
