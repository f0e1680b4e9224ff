"""Evaluation of models and runs: scores of recorded answers, comparisons, diagnosis, figures."""
