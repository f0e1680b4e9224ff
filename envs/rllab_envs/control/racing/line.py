"""Racing lines: an offset from the centre line at each place, the speeds that friction allows on it, and its time.

Speeds are those of a point with the car's engine, brakes and drag and a friction circle. No car reaches them: it needs
time to turn. Axes: C lines, K offsets given, M places of the track.
"""

import math

import numpy as np
from numba import njit

from rllab_envs.control.racing.car import BRAKES, DRAG, ENGINE, GRIP, POWER, ROLLING
from rllab_envs.control.racing.track import Track

_TOP = 60.0  # m/s: where a line is straight
_EVERY = 4  # places of the track, of which one is used where many lines are compared


def smooth(offsets: np.ndarray, places: int) -> np.ndarray:
    """Offsets [C, K] at equal distances as lines [C, M]: the periodic function of fewest frequencies through them.

    Frequencies at which the K offsets say nothing are 0, so a line has no sharper bends than its offsets ask for.
    """
    spectrum = np.fft.rfft(offsets, axis=1)
    count = offsets.shape[1]
    if count % 2 == 0:
        spectrum[:, -1] *= 0.5  # that frequency stands for itself and its mirror image
    return np.fft.irfft(spectrum * (places / count), places, axis=1)


def bends(track: Track, lines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(curvature of lines [C, M] in 1/m, metres to the next place [C, M]); offsets lie within the walls.

    With a = 1 - eκ the derivative of the position is a t + e' n, where t, n point along and across the centre line.
    """
    h, k = track.spacing, track.curvature
    e1, e2 = (
        (np.roll(lines, -1, 1) - np.roll(lines, 1, 1)) / (2 * h),
        np.roll(lines, -1, 1) - 2 * lines + np.roll(lines, 1, 1),
    )
    e2, k1 = e2 / h**2, (np.roll(k, -1) - np.roll(k, 1)) / (2 * h)
    a = 1 - lines * k
    size = np.sqrt(a**2 + e1**2)
    return (a * (a * k + e2) + e1 * (2 * e1 * k + lines * k1)) / size**3, size * h


@njit(cache=True, nogil=True)
def speeds(bend: np.ndarray, gap: np.ndarray, friction: float) -> tuple[np.ndarray, np.ndarray]:
    """(the highest speeds [C, M] in m/s along lines, their lap times [C] in s).

    bend, gap [C, M]: of `bends`. friction: the share of the grip that is used. A pass against the direction of driving
    limits speeds by the brakes, and one with it by the engine; each goes around twice, as a lap has no beginning.
    """
    lines, places = bend.shape
    fastest, times = np.empty((lines, places)), np.zeros(lines)
    grip = friction * GRIP
    for c in range(lines):
        v = fastest[c]
        for m in range(places):
            v[m] = min(math.sqrt(grip / max(abs(bend[c, m]), 1e-6)), _TOP)
        for k in range(2 * places - 1, -1, -1):
            m, after = k % places, (k + 1) % places
            side = v[after] * v[after] * abs(bend[c, after])
            brakes = min(math.sqrt(max(grip * grip - side * side, 0.0)), friction * BRAKES)
            drag = DRAG * v[after] * v[after] + ROLLING
            v[m] = min(v[m], math.sqrt(v[after] * v[after] + 2 * (brakes + drag) * gap[c, m]))
        for k in range(2 * places):
            m, after = k % places, (k + 1) % places
            side = v[m] * v[m] * abs(bend[c, m])
            engine = min(math.sqrt(max(grip * grip - side * side, 0.0)), ENGINE, POWER / max(v[m], 1.0))
            drag = DRAG * v[m] * v[m] + ROLLING
            v[after] = min(v[after], math.sqrt(max(v[m] * v[m] + 2 * (engine - drag) * gap[c, m], 1.0)))
        for m in range(places):
            times[c] += 2 * gap[c, m] / (v[m] + v[(m + 1) % places])
    return fastest, times


def line_times(track: Track, offsets: np.ndarray, most: float) -> np.ndarray:
    """Lap times [C] in s of a point on lines with offsets [C, K]; 10 s more for a metre beyond `most` metres."""
    coarse = slice(None, None, _EVERY)
    sparse = Track(track.x[coarse], track.y[coarse], track.heading[coarse], track.curvature[coarse], track.length)
    lines = smooth(offsets, len(sparse.x))
    times: np.ndarray = speeds(*bends(sparse, lines), 1.0)[1]
    over: np.ndarray = np.maximum(np.abs(lines) - most, 0.0).max(1)
    times += 10 * over
    return times
