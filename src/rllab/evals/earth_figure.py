"""Draws maps of the Earth as models see it, in the equirectangular projection."""

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rllab.evals.earth import EarthMap, summary
from rllab.evals.figures import need_matplotlib, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_EXTENT = (-180, 180, -90, 90)  # degrees: west, east, south, north
_COLOURS = "BrBG_r"  # green of water to brown of land
_ABREAST = 3  # most maps in a row


def draw(maps: Sequence[EarthMap], mask: np.ndarray, path: Path) -> None:
    """Draws maps to a file: .svg, .png or .pdf. mask: bool [180, 360].

    Raises:
        Mistake: matplotlib is not installed, or does not write such files.
    """
    save(figure_of(maps, mask), path)


def figure_of(maps: Sequence[EarthMap], mask: np.ndarray) -> "Figure":
    """Returns a figure with a panel for each map: the probability of land as colour, and the coasts of the mask.

    mask: bool [180, 360].

    Raises:
        Mistake: matplotlib is not installed.
    """
    need_matplotlib("--figure")
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    across = min(_ABREAST, len(maps))
    down = ceil(len(maps) / across)
    figure = Figure(figsize=(4.2 * across + 0.8, 2.4 * down + 0.2), layout="constrained")
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    for axes, each in zip(panels, maps, strict=False):
        _panel(axes, each, mask)
    for axes in panels[len(maps) :]:
        axes.set_axis_off()
    figure.colorbar(ScalarMappable(Normalize(0, 1), _COLOURS), ax=panels, label="probability of land", shrink=0.8)
    return figure


def _panel(axes: "Axes", each: EarthMap, mask: np.ndarray) -> None:
    axes.imshow(each.land, extent=_EXTENT, cmap=_COLOURS, vmin=0, vmax=1, interpolation="nearest")
    latitude, longitude = 89.5 - np.arange(mask.shape[0]), np.arange(mask.shape[1]) - 179.5
    axes.contour(longitude, latitude, mask, levels=[0.5], colors="black", linewidths=0.3)
    row = summary(each, mask)
    axes.set_title(f"{each.model}: {100 * row['accuracy']:.1f} % right", fontsize="small")
    axes.set_xticks([-180, -90, 0, 90, 180], ["180 W", "90 W", "0", "90 E", "180 E"], fontsize="x-small")
    axes.set_yticks([-90, 0, 90], ["90 S", "0", "90 N"], fontsize="x-small")
