"""The car: a dynamic bicycle with a friction circle at each axle, stepped in numba.

State of a car, in this order: ALONG the distance along the centre line in metres, which goes on over the laps; OFFSET
from it to the left; HEADING against that of the centre line; VX, VY the speed along and across the car; YAW the rate of
turning; STEER the angle of the front wheels. Then the lap: LINE the number of the next crossing of the start line;
CLOCK seconds since the last crossing (negative before the first); CLEAN 1 while the lap has stayed on the road; LAPS,
VALID: laps finished, and those of them that are valid; TIME, SPENT: the seconds of the valid ones, and of all, added
up. FOUL is the largest `edge_share` in this step, and CRASHED is 1 once the car has hit the wall or spun.

The tyre's side force is D sin(C atan(B α)) at a slip angle α (Pacejka 2012, without its curvature term), where D is
what the friction circle leaves beside the force along. The mass is 1, so forces are accelerations.
"""

import math

import numpy as np
from numba import njit

from rllab_envs.control.racing.track import HALF_WIDTH, WALL

COMPONENTS = 16
ALONG, OFFSET, HEADING, VX, VY, YAW, STEER, LINE, CLOCK, CLEAN, LAPS, VALID, TIME, SPENT, FOUL, CRASHED = range(
    COMPONENTS
)

GRIP = 10.8  # m/s^2: friction coefficient times gravity
FRONT, REAR = 1.25, 1.25  # m from the centre of mass to the axles
INERTIA = 1.6  # m^2: moment of inertia about the vertical axis, for a mass of 1
REAR_GRIP = 1.08  # of the rear tyres, relative to the front ones: the car understeers at the limit
STIFFNESS, SHAPE = 11.0, 1.15  # B and C of the tyres
ENGINE, POWER = 4.5, 150.0  # m/s^2 and W/kg: the engine's force is the smaller of ENGINE and POWER / speed
BRAKES = 10.0  # m/s^2
DRIVE_FRONT, BRAKE_FRONT = 0.4, 0.6  # shares of the front axle
DRAG, ROLLING = 0.0015, 0.1  # 1/m: drag is DRAG speed^2; m/s^2
TOP_STEER, STEER_RATE = 0.45, 2.5  # rad, rad/s
MARGIN = 1.0  # m: the penalty begins so far inside the edge
SPUN = 1.9  # rad: a car that stands so far against the track has spun
SECONDS, SUBSTEPS = 0.1, 10  # of a step


@njit(cache=True, nogil=True)
def side_force(slip: float, normal: float, along: float) -> float:
    """The side force in m/s^2 of an axle that can hold `normal` and already pushes `along`."""
    left = math.sqrt(max(normal * normal - along * along, 0.0))
    return left * math.sin(SHAPE * math.atan(STIFFNESS * slip))


@njit(cache=True, nogil=True)
def accelerations(
    vx: float, vy: float, yaw: float, wheel: float, push: float, tow: float
) -> tuple[float, float, float]:
    """(accelerations along and across the car in m/s^2, that of the yaw rate in rad/s^2).

    wheel: the angle of the front wheels; push: the pedal in [-1, 1]; tow: the share of the drag that is removed.
    """
    half = FRONT / (FRONT + REAR)
    if push > 0.0:
        force, share = push * min(ENGINE, POWER / max(vx, 1.0)), DRIVE_FRONT
    else:
        force, share = push * BRAKES * min(vx, 1.0), BRAKE_FRONT
    normal_front, normal_rear = GRIP * (1.0 - half), GRIP * half * REAR_GRIP
    along_front = min(max(force * share, -0.95 * normal_front), 0.95 * normal_front)
    along_rear = min(max(force * (1.0 - share), -0.95 * normal_rear), 0.95 * normal_rear)
    rolling = max(vx, 3.0)  # slip angles of a car that hardly moves are not defined
    side_front = side_force(wheel - math.atan((vy + FRONT * yaw) / rolling), normal_front, along_front)
    side_rear = side_force(-math.atan((vy - REAR * yaw) / rolling), normal_rear, along_rear)
    cos, sin = math.cos(wheel), math.sin(wheel)
    drag = (DRAG * (1.0 - tow) * vx + ROLLING * min(vx, 1.0) / max(vx, 1.0)) * vx
    ax = along_front * cos - side_front * sin + along_rear - drag + vy * yaw
    ay = along_front * sin + side_front * cos + side_rear - vx * yaw
    turning = (FRONT * (along_front * sin + side_front * cos) - REAR * side_rear) / INERTIA
    return ax, ay, turning


@njit(cache=True, nogil=True)
def edge_share(offset: float) -> float:
    """The share of the penalty for leaving the road: it rises from 0, MARGIN inside the edge, to 1 at the edge.

    With a penalty that is full from its first place on, the value has a step, which a network approximates poorly:
    cars then leave the road by a little, again and again.
    """
    return min(max((abs(offset) - HALF_WIDTH) / MARGIN + 1.0, 0.0), 1.0)


@njit(cache=True, nogil=True)
def drive(
    cars: np.ndarray, steer: np.ndarray, pedal: np.ndarray, tow: np.ndarray, curvature: np.ndarray, length: float
) -> None:
    """Steps cars [COMPONENTS, N] in place by SECONDS.

    steer, pedal [N]: in [-1, 1]; a negative pedal brakes. tow [N]: the share of the drag that a slipstream removes.
    curvature [M]: of the centre line, at equal distances; length: of the track, in metres.
    """
    dt, count = SECONDS / SUBSTEPS, len(curvature)
    for n in range(cars.shape[1]):
        s, e, psi, vx, vy, yaw, wheel = (
            cars[ALONG, n],
            cars[OFFSET, n],
            cars[HEADING, n],
            cars[VX, n],
            cars[VY, n],
            cars[YAW, n],
            cars[STEER, n],
        )
        wanted, push = min(max(steer[n], -1.0), 1.0) * TOP_STEER, min(max(pedal[n], -1.0), 1.0)
        cars[FOUL, n] = 0.0
        for _ in range(SUBSTEPS):
            wheel += min(max(wanted - wheel, -STEER_RATE * dt), STEER_RATE * dt)
            at = (s % length) / length * count
            i = int(at) % count
            bend = curvature[i] + (at - int(at)) * (curvature[(i + 1) % count] - curvature[i])
            ax, ay, turning = accelerations(vx, vy, yaw, wheel, push, tow[n])
            vx, vy, yaw = max(vx + ax * dt, 0.0), vy + ay * dt, yaw + turning * dt
            forward = (vx * math.cos(psi) - vy * math.sin(psi)) / max(1.0 - e * bend, 0.05)
            before = s
            s += forward * dt
            e += (vx * math.sin(psi) + vy * math.cos(psi)) * dt
            psi += (yaw - bend * forward) * dt
            cars[FOUL, n] = max(cars[FOUL, n], edge_share(e))
            if abs(e) > HALF_WIDTH:
                cars[CLEAN, n] = 0.0
            if s >= cars[LINE, n] * length:
                part = (cars[LINE, n] * length - before) / (s - before)
                _cross(cars, n, cars[CLOCK, n] + part * dt)
                cars[CLOCK, n], cars[CLEAN, n] = (1.0 - part) * dt, 1.0 if abs(e) <= HALF_WIDTH else 0.0
            elif cars[CLOCK, n] >= 0.0:
                cars[CLOCK, n] += dt
            if abs(e) > WALL or abs(psi) > SPUN:
                cars[CRASHED, n] = 1.0
                break
        cars[ALONG, n], cars[OFFSET, n], cars[HEADING, n], cars[VX, n], cars[VY, n], cars[YAW, n], cars[STEER, n] = (
            s,
            e,
            psi,
            vx,
            vy,
            yaw,
            wheel,
        )


@njit(cache=True, nogil=True)
def _cross(cars: np.ndarray, n: int, seconds: float) -> None:
    """Counts the lap of car n that ends at the start line, after so many seconds; before the first line it is none."""
    cars[LINE, n] += 1.0
    if cars[CLOCK, n] >= 0.0:
        cars[LAPS, n] += 1.0
        cars[SPENT, n] += seconds
        if cars[CLEAN, n] == 1.0:
            cars[VALID, n] += 1.0
            cars[TIME, n] += seconds
