"""The shared trainer core: it knows torch and numpy, and no algorithm, environment or language model.

This file imports nothing heavy, so that signals are caught before torch is loaded.
"""

import os

# Torch's threads wait for one another a hundred times a step, spinning for milliseconds. Where another process wants
# their core, a step then takes twenty times as long; to sleep after microseconds costs a twentieth when alone.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
