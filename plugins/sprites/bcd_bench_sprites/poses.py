"""The 48 poses of our procedural characters: positions of head, hands, knees and feet in each frame of each action.

Two views are defined, front and right; left is the mirror image of right. All points are (x, y) in pixels of the 64 x
64 frame. `sides` are (viewer's left, viewer's right) in the front view and (near, far) in the side view.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from bcd_bench_sprites.drawing import Point
from bcd_bench_sprites.factors import FRAMES

__all__ = ["Limb", "Pose", "View", "pose"]

View = Literal["front", "side"]
_CENTRE = 32


@dataclass(frozen=True)
class Limb:
    """Shoulder, elbow and hand, or hip, knee and foot. `behind`: behind the trunk; `over`: in front of the head."""

    root: Point
    joint: Point
    end: Point
    behind: bool = False
    over: bool = False


@dataclass(frozen=True)
class Pose:
    """One frame of a motion, seen from the front or from the side (facing right)."""

    view: View
    head: Point
    chest: Point
    hips: Point
    arms: tuple[Limb, Limb]
    legs: tuple[Limb, Limb]
    eyes_closed: bool = False
    open_hands: bool = False
    blade: Point | None = None
    """Vector from the hand of arms[0] to the tip of the blade, if there is one."""


def pose(action: str, view: View, frame: int) -> Pose:
    """The pose of `frame` (0..7) of "walk", "spellcard" or "slash"."""
    return _POSES[action, view](frame)


# walk: one leg's swing (+ is forward) and lift; the other leg and the arms are half a cycle later ------------------
_SWING = (8, 5, 1, -4, -8, -5, 1, 6)
_LIFT = (0, 0, 0, 0, 1, 4, 5, 2)
_BOB = (1, 0, -1, 0, 1, 0, -1, 0)
_SWAY = (0, -1, -1, -1, 0, 1, 1, 1)


def _walk_front(frame: int) -> Pose:
    bob, sway = _BOB[frame], _SWAY[frame]
    arms, legs = [], []
    for side, sign in enumerate((-1, 1)):
        swing, lift = _phase(_SWING, frame, side), _phase(_LIFT, frame, side)
        foot = 58 + swing // 4 - lift
        hip = (_CENTRE + sway + 4 * sign, 47 + bob)
        legs.append(
            Limb(hip, (_CENTRE + 4 * sign + sign * (lift > 1), (47 + bob + foot) // 2), (_CENTRE + 4 * sign, foot))
        )
        reach = -swing  # arms move opposite to the legs
        hand = (_CENTRE + sway + sign * (11 - max(reach, 0) // 3), 47 + bob - abs(reach) // 2)
        elbow = (_CENTRE + sway + sign * 11, 41 + bob - max(reach, 0) // 4)
        arms.append(Limb((_CENTRE + sway + 8 * sign, 36 + bob), elbow, hand, behind=reach < -3))
    x = _CENTRE + sway
    return Pose("front", (x, 23 + bob), (x, 35 + bob), (x, 46 + bob), (arms[0], arms[1]), (legs[0], legs[1]))


def _walk_side(frame: int) -> Pose:
    bob = _BOB[frame]
    arms, legs = [], []
    for side in range(2):
        swing, lift = _phase(_SWING, frame, side), _phase(_LIFT, frame, side)
        hip, foot = (_CENTRE, 47 + bob), (_CENTRE + swing, 58 - lift - (swing < -6))
        legs.append(Limb(hip, ((hip[0] + foot[0]) // 2 + 1 + lift // 2, (hip[1] + foot[1]) // 2), foot))
        hand = (_CENTRE - swing, 46 + bob - abs(swing) // 4)
        arms.append(Limb((_CENTRE, 36 + bob), (_CENTRE - swing // 2 - 2, 41 + bob), hand, over=side == 0))
    return Pose(
        "side",
        (_CENTRE + 1, 23 + bob),
        (_CENTRE, 35 + bob),
        (_CENTRE, 46 + bob),
        (arms[0], arms[1]),
        (legs[0], legs[1]),
    )


def _phase(table: tuple[int, ...], frame: int, side: int) -> int:
    return table[(frame + side * FRAMES // 2) % FRAMES]


# spellcard: hands gather, join in front of the chest with the eyes closed, open, and rise ---------------------------
_CAST_FRONT = (  # (elbow, hand) of the viewer's right side, x relative to the centre
    ((11, 41), (11, 47)),
    ((13, 41), (9, 45)),
    ((11, 42), (3, 42)),
    ((11, 41), (3, 37)),
    ((13, 40), (15, 37)),
    ((14, 37), (20, 33)),
    ((14, 29), (16, 19)),
    ((14, 34), (19, 26)),
)
_CAST_SIDE = (  # (elbow, hand) of the near arm; the far one is slightly ahead
    ((30, 41), (31, 47)),
    ((28, 41), (36, 45)),
    ((30, 42), (40, 42)),
    ((32, 42), (41, 37)),
    ((36, 41), (46, 38)),
    ((40, 37), (50, 33)),
    ((40, 29), (46, 19)),
    ((40, 34), (50, 26)),
)
_CAST_BOB = (0, 0, 1, 1, 0, 0, -1, -1)


def _cast_front(frame: int) -> Pose:
    bob = _CAST_BOB[frame]
    (ex, ey), (hx, hy) = _CAST_FRONT[frame]
    arms = [
        Limb((_CENTRE + 8 * s, 36 + bob), (_CENTRE + ex * s, ey + bob), (_CENTRE + hx * s, hy + bob), over=frame > 1)
        for s in (-1, 1)
    ]
    legs = _standing("front", 46 + bob, 0)
    return Pose(
        "front",
        (_CENTRE, 23 + bob),
        (_CENTRE, 35 + bob),
        (_CENTRE, 46 + bob),
        (arms[0], arms[1]),
        legs,
        eyes_closed=frame in (2, 3),
        open_hands=frame > 1,
    )


def _cast_side(frame: int) -> Pose:
    bob = _CAST_BOB[frame]
    (ex, ey), (hx, hy) = _CAST_SIDE[frame]
    shoulder = (_CENTRE, 36 + bob)
    arms = (
        Limb(shoulder, (ex, ey + bob), (hx, hy + bob), over=True),
        Limb(shoulder, (ex + 2, ey + bob - 1), (hx + 3, hy + bob - 3), behind=True),
    )
    return Pose(
        "side",
        (_CENTRE + 1, 23 + bob),
        (_CENTRE, 35 + bob),
        (_CENTRE, 46 + bob),
        arms,
        _standing("side", 46 + bob, 0),
        eyes_closed=frame in (2, 3),
        open_hands=frame > 1,
    )


# slash: the blade goes up and back, comes over, and follows through --------------------------------------------------
_SLASH_FRONT = (  # (elbow, hand, blade from the hand) of the viewer's left arm
    ((20, 41), (20, 46), (-7, -10)),
    ((17, 40), (14, 37), (-6, -12)),
    ((17, 33), (15, 25), (-7, -12)),
    ((16, 36), (17, 38), (-14, 4)),
    ((22, 43), (28, 43), (-5, 14)),
    ((27, 42), (39, 41), (13, 7)),
    ((26, 41), (40, 37), (14, -4)),
    ((23, 43), (29, 45), (2, 13)),
)
_SLASH_SIDE = (
    ((29, 42), (35, 45), (10, -9)),
    ((25, 40), (28, 45), (-9, -10)),
    ((25, 33), (23, 25), (-11, -8)),
    ((35, 30), (43, 25), (3, -14)),
    ((39, 35), (48, 34), (14, -1)),
    ((38, 40), (46, 42), (11, 10)),
    ((35, 43), (41, 47), (6, 12)),
    ((31, 43), (38, 46), (12, 5)),
)
_SLASH_LEAN = (0, -1, -2, -1, 1, 2, 2, 1)
_SLASH_STEP = (0, 0, 1, 2, 4, 5, 4, 2)
_SLASH_DIP = (0, 0, -1, 0, 1, 2, 2, 1)


def _slash(view: View, frame: int) -> Pose:
    front = view == "front"
    lean, dip = _SLASH_LEAN[frame], _SLASH_DIP[frame]
    elbow, hand, blade = (_SLASH_FRONT if front else _SLASH_SIDE)[frame]
    x = _CENTRE + lean
    if front:
        sword = Limb((x - 8, 36 + dip), (elbow[0], elbow[1]), hand, over=True)
        other_arm = Limb(
            (x + 8, 36 + dip), (x + 12, 41 + dip), (x + 11 + frame % 3, 46 + dip - _SLASH_STEP[frame] // 2)
        )
    else:
        sword = Limb((x, 36 + dip), elbow, hand, over=True)
        other_arm = Limb((x, 36 + dip), (x - 2, 41 + dip), (x - 1 - _SLASH_STEP[frame], 45 + dip), behind=True)
    return Pose(
        view,
        (x + (not front) + lean // 2, 23 + dip),
        (x, 35 + dip),
        (_CENTRE + lean // 2, 46 + dip),
        (sword, other_arm),
        _standing(view, 46 + dip, _SLASH_STEP[frame]),
        blade=blade,
    )


def _standing(view: View, hips: int, step: int) -> tuple[Limb, Limb]:
    """Both feet on the ground, `step` pixels farther apart than at rest."""
    if view == "front":
        left, right = (
            Limb((_CENTRE + 4 * s, hips + 1), (_CENTRE + (5 + step // 2) * s, 53), (_CENTRE + (5 + step // 2) * s, 58))
            for s in (-1, 1)
        )
        return left, right
    near = Limb((_CENTRE, hips + 1), (_CENTRE + step // 2 + 1, 53), (_CENTRE + step, 58))
    far = Limb((_CENTRE, hips + 1), (_CENTRE - step // 2 + 2, 53), (_CENTRE - step + 3, 57))
    return near, far


_POSES: dict[tuple[str, View], Callable[[int], Pose]] = {
    ("walk", "front"): _walk_front,
    ("walk", "side"): _walk_side,
    ("spellcard", "front"): _cast_front,
    ("spellcard", "side"): _cast_side,
    ("slash", "front"): lambda frame: _slash("front", frame),
    ("slash", "side"): lambda frame: _slash("side", frame),
}
