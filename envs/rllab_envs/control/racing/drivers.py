"""A driver by a rule: pure pursuit of a line (Coulter 1992), at the speeds that a share of the friction allows."""

import numpy as np

from rllab_envs.control.racing.car import ALONG, BRAKES, ENGINE, FRONT, HEADING, OFFSET, REAR, TOP_STEER, VX
from rllab_envs.control.racing.line import bends, smooth, speeds
from rllab_envs.control.racing.track import Track

_AHEAD = 0.25  # s: the speed wanted is that of the place which the car reaches so much later
_GAIN = 1.5  # 1/s: acceleration wanted for a speed that is wrong by 1 m/s
_UNDERSTEER = 0.0035  # rad s^2/m: more steering angle the harder the car turns


class Pursuit:
    """Steers to a point ahead on the line, on the arc of a circle, and keeps the line's speed.

    friction [N]: the share of the grip that each car uses. near, far [N]: the point is near + far * speed metres ahead.
    offsets [K]: of the line from the centre line, at equal distances.
    """

    def __init__(
        self, track: Track, offsets: np.ndarray, friction: np.ndarray, near: np.ndarray, far: np.ndarray
    ) -> None:
        self.track, self.near, self.far = track, near, far
        self.line = smooth(np.asarray(offsets, np.float64)[None], len(track.x))
        bend, gap = bends(track, self.line)
        levels, self._own = np.unique(friction, return_inverse=True)
        self._speeds = np.concatenate([speeds(bend, gap, float(f))[0] for f in levels])

    def __call__(self, cars: np.ndarray) -> np.ndarray:
        """Actions [N, 2], steering and pedal in [-1, 1], of cars [COMPONENTS, N]."""
        track, v = self.track, cars[VX]
        ahead = self.near + self.far * v
        x, y = track.place(cars[ALONG], cars[OFFSET])
        heading = cars[HEADING] + track.direction(cars[ALONG])
        aim = cars[ALONG] + ahead
        aim_x, aim_y = track.place(aim, self._at(self.line[0], aim))
        left = -np.sin(heading) * (aim_x - x) + np.cos(heading) * (aim_y - y)
        bend = 2 * left / np.maximum((aim_x - x) ** 2 + (aim_y - y) ** 2, 1.0)
        angle = np.arctan(bend * (FRONT + REAR)) + _UNDERSTEER * bend * v**2
        i = np.round((cars[ALONG] + _AHEAD * v) / track.spacing).astype(np.int64) % len(track.x)
        wanted = _GAIN * (self._speeds[self._own, i] - v)
        pedal = np.where(wanted > 0, wanted / ENGINE, wanted / BRAKES)
        actions: np.ndarray = np.clip(np.stack([angle / TOP_STEER, pedal], 1), -1.0, 1.0)
        return actions

    def _at(self, values: np.ndarray, s: np.ndarray) -> np.ndarray:
        """Values [M] of the track's places at distances s [N]."""
        at = np.mod(s, self.track.length) / self.track.spacing
        i = np.floor(at).astype(np.int64) % len(values)
        near: np.ndarray = values[i] + (at - np.floor(at)) * (values[(i + 1) % len(values)] - values[i])
        return near
