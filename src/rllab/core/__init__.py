"""The shared trainer core: it knows torch and numpy, and no algorithm, environment or language model.

This file imports nothing, so that signals are caught before torch is loaded.
"""
