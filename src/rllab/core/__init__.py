"""The shared trainer core. It depends on torch and numpy, and on no algorithm, environment or language model.

This file imports nothing heavy, because signal handlers are installed before torch is loaded.
"""

import os

# Torch's threads wait for one another a hundred times a step, and spin for milliseconds while they wait. If another
# process needs the core, a step then takes twenty times as long. Sleeping after microseconds costs 5 % on an idle
# machine.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
