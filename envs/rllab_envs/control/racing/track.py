"""A closed track: a periodic cubic spline through control points, and the coordinates along it.

A place on the track is (s, e): the distance along the centre line, and the offset from it to the left, in metres.
Axes: K control points, M samples of the centre line at equal distances.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rllab.core.errors import FieldMistake

HALF_WIDTH = 5.0  # m, from the centre line to the edge of the road
WALL = 9.0  # m, from the centre line to the wall; between them is a run-off with the road's grip
SPACING = 0.5  # m between two samples, before it is rounded so that they divide the length
_SHORTEST, _LONGEST = 200.0, 20_000.0  # m
_DENSE = 200  # points of the spline between two control points, from which lengths are computed

HOME = (
    (0, 0), (68, -3), (136, 0), (203, 9), (258, 38), (271, 88), (235, 120), (190, 104),
    (154, 127), (156, 172), (194, 203), (188, 244), (140, 255), (97, 231), (88, 183), (59, 149),
    (18, 151), (-16, 183), (-61, 185), (-84, 149), (-66, 113), (-38, 86), (-50, 54), (-75, 25),
    (-54, -2),
)  # fmt: skip
TRACKS = {"home": HOME, "mirror": tuple((x, -y) for x, y in HOME)}
"""Tracks by name. `mirror` is `home` with left and right exchanged."""

Points = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Track:
    """The centre line at M places, `spacing` metres apart; place 0 is the start line.

    x, y [M]: metres; heading [M]: radians, unwrapped; curvature [M]: 1/m, positive where it turns left; length: metres.
    """

    x: np.ndarray
    y: np.ndarray
    heading: np.ndarray
    curvature: np.ndarray
    length: float

    @property
    def spacing(self) -> float:
        """Metres between two places."""
        return self.length / len(self.x)

    def direction(self, s: np.ndarray) -> np.ndarray:
        """The heading of the centre line in radians at distances s [N] along it."""
        places = np.arange(len(self.x) + 1) * self.spacing
        headings = np.append(self.heading, self.heading[0] + self._turn)
        at: np.ndarray = np.interp(np.mod(s, self.length), places, headings)
        return at

    @property
    def _turn(self) -> float:
        """Radians that a lap turns."""
        return round(float(self.heading[-1] - self.heading[0]) / (2 * np.pi)) * 2 * np.pi

    def place(self, s: np.ndarray, e: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """World coordinates (x, y) [N] in metres of places (s, e) [N]; any other shape will do as well."""
        at = np.mod(s, self.length) / self.spacing
        i, part = np.floor(at).astype(np.int64) % len(self.x), at % 1.0
        j, heading = (i + 1) % len(self.x), self.direction(s)
        x = self.x[i] + part * (self.x[j] - self.x[i]) - e * np.sin(heading)
        return x, self.y[i] + part * (self.y[j] - self.y[i]) + e * np.cos(heading)


def make_track(points: str | Points) -> Track:
    """The track of a name in `TRACKS`, or through control points [K, 2] in metres, in the direction of driving.

    Raises:
        FieldMistake: there is no such name; or the points are no closed track: too few, not finite, two in a row at one
            place, too short or too long, a bend so tight that the walls cross, or a road that meets itself.
    """
    if isinstance(points, str):
        if points not in TRACKS:
            raise _mistake(f"there is no track {points!r}; there are {', '.join(TRACKS)}, or a list of points [x, y]")
        return make_track(TRACKS[points])
    track = _sampled(*_spline(_checked(points)))
    tightest = int(np.abs(track.curvature).argmax())
    if (radius := 1 / max(abs(track.curvature[tightest]), 1e-9)) < WALL + 0.5:
        where = _at(track, tightest)
        raise _mistake(f"its bend {where} has a radius of {radius:.1f} m; at least {WALL + 0.5} m is needed")
    _refuse_crossings(track)
    return track


def _mistake(what: str) -> FieldMistake:
    return FieldMistake("env_kwargs", f"track: {what}")


def _at(track: Track, i: int) -> str:
    return f"at {i * track.spacing:.0f} m ({track.x[i]:.0f}, {track.y[i]:.0f})"


def _checked(points: Points) -> np.ndarray:
    """The control points as an array [K, 2]."""
    try:
        array = np.array([[float(v) for v in p] for p in points])
    except (TypeError, ValueError):
        raise _mistake("expected a list of points, as in [[0, 0], [80, 10], ...], in metres") from None
    if array.ndim != 2 or array.shape[1] != 2 or len(array) < 4:
        raise _mistake(f"expected at least 4 points [x, y], got an array of shape {list(array.shape)}")
    if not np.isfinite(array).all():
        raise _mistake(f"point {int(np.isfinite(array).all(1).argmin())} is not finite")
    gaps = np.hypot(*(np.roll(array, -1, 0) - array).T)
    if gaps.min() < 1.0:
        i = int(gaps.argmin())
        raise _mistake(
            f"points {i} and {(i + 1) % len(array)} are {gaps[i]:.2f} m apart; the last joins the first by itself"
        )
    return array


def _spline(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(places, first and second derivatives by the parameter), each [K * _DENSE, 2], of the periodic cubic spline.

    Its parameter is the length of the chords. The second derivatives at the control points solve the spline's linear
    equations (de Boor 1978, chapter IV, with periodic ends).
    """
    count = len(points)
    gap, after = np.hypot(*(np.roll(points, -1, 0) - points).T), np.roll(np.arange(count), -1)
    before = np.roll(np.arange(count), 1)
    slope = (points[after] - points) / gap[:, None]
    system = np.zeros((count, count))
    rows = np.arange(count)
    system[rows, rows] = 2 * (gap[before] + gap)
    system[rows, before] += gap[before]
    system[rows, after] += gap
    bend = np.linalg.solve(system, 6 * (slope - slope[before]))
    part = (np.arange(_DENSE) / _DENSE)[None, :, None]
    h, m0, m1 = gap[:, None, None], bend[:, None], bend[after][:, None]
    p0, p1 = points[:, None], points[after][:, None]
    a, b = 1 - part, part
    place = a * p0 + b * p1 + ((a**3 - a) * m0 + (b**3 - b) * m1) * h**2 / 6
    first = (p1 - p0) / h + ((3 * b**2 - 1) * m1 - (3 * a**2 - 1) * m0) * h / 6
    second = a * m0 + b * m1
    return place.reshape(-1, 2), first.reshape(-1, 2), second.reshape(-1, 2)


def _sampled(place: np.ndarray, first: np.ndarray, second: np.ndarray) -> Track:
    """The track at equal distances, from dense places and derivatives [D, 2]."""
    closed = np.concatenate([place, place[:1]])
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
    length = float(along[-1])
    if not _SHORTEST <= length <= _LONGEST:
        raise _mistake(
            f"it is {length:.0f} m long; from {_SHORTEST:.0f} to {_LONGEST:.0f} m is possible, points are in metres"
        )
    speed = np.hypot(*first.T)
    curvature = (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]) / speed**3
    heading = np.unwrap(np.arctan2(first[:, 1], first[:, 0]))
    turn = round((heading[-1] - heading[0]) / (2 * np.pi)) * 2 * np.pi
    s = np.arange(round(length / SPACING)) * length / round(length / SPACING)
    columns = (closed[:, 0], closed[:, 1], np.append(heading, heading[0] + turn), np.append(curvature, curvature[0]))
    x, y, heading, curvature = (np.interp(s, along, c) for c in columns)
    return Track(x, y, heading, curvature, length)


def _refuse_crossings(track: Track) -> None:
    """Refuses a road that crosses or touches itself: two places far apart along it, and nearer than its width."""
    step = max(1, round(2.0 / track.spacing))
    x, y, count = track.x[::step], track.y[::step], len(track.x)
    i = np.arange(0, count, step)
    along = np.abs(i[:, None] - i[None]) * track.spacing
    along = np.minimum(along, track.length - along)
    apart = np.hypot(x[:, None] - x[None], y[:, None] - y[None])
    touching = (along > 2 * np.pi * WALL) & (apart < 2 * HALF_WIDTH)
    if touching.any():
        first, second = np.unravel_index(np.where(touching, apart, np.inf).argmin(), apart.shape)
        places = f"{_at(track, i[first])} and {_at(track, i[second])}"
        raise _mistake(f"the road crosses or touches itself, {places}; move the points so that it does not")
