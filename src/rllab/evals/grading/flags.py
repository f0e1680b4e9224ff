"""What an instructor should look at: submissions that are alike, memorised items, adapters that do nothing."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rllab.evals.comparison import SIGNIFICANT
from rllab.evals.grading.grade import Flag
from rllab.evals.grading.leaderboard import grid_of
from rllab.evals.grading.part import Measured
from rllab.stats import holm, sign_flip


class Fingerprint(NamedTuple):
    """What tells whether two submissions for a part are the same: the hash of weights, or else of files."""

    part: str
    content: str


def identical(prints: Mapping[str, Sequence[Fingerprint]]) -> dict[str, list[Flag]]:
    """Returns a flag for each part in which several submissions are the same. prints: by id."""
    owners, flags = defaultdict[Fingerprint, list[str]](list), defaultdict[str, list[Flag]](list)
    for ident, each in prints.items():
        for one in each:
            owners[one].append(ident)
    for fingerprint, ids in owners.items():
        for ident in ids if len(ids) > 1 else ():
            others = tuple(i for i in ids if i != ident)
            text = f"{fingerprint.part}: the same as of {', '.join(others)}"
            flags[ident].append(Flag("identical", text, others))
    return flags


def memorised(part: str, measured: Mapping[str, Measured]) -> dict[str, Flag]:
    """Returns a flag for each submission that is clearly better on public items than on their twins.

    The test is a paired permutation test over items (McNemar's where credits are 0 and 1), with Holm's correction for
    all submissions. measured: of a part, by id.
    """
    tests = dict[str, tuple[float, int, float]]()  # the mean difference, the items, p
    for ident, each in measured.items():
        own = each.credits
        ids = [i for i in each.public if i in own]
        if ids:
            difference = np.array([each.public[i] - own[i] for i in ids])
            tests[ident] = float(difference.mean()), len(ids), sign_flip(difference, grid_of(difference))
    corrected = holm([p for _, _, p in tests.values()])
    return {
        ident: Flag(
            "memorised",
            f"{part}: {100 * difference:+.1f} points better on public items than on their twins ({items} pairs, "
            f"p = {p:.2g} by Holm's correction)",
        )
        for (ident, (difference, items, _)), p in zip(tests.items(), corrected, strict=True)
        if difference > 0 and p < SIGNIFICANT
    }
