"""Our procedural characters: the appearance of each attribute value in a pose, one function per layer."""

from __future__ import annotations

from bcd_bench_sprites.drawing import Canvas, Colour, Mask, Point, capsule, ellipse, polygon, rectangle, xs, ys
from bcd_bench_sprites.poses import Limb, Pose

__all__ = ["common_layer", "hair_layer", "pants_layer", "skin_layer", "top_layer"]

SKINS: tuple[Colour, ...] = (
    (255, 214, 184),  # pale
    (222, 158, 98),  # tan
    (146, 88, 54),  # brown
    (120, 190, 84),  # orc green
    (104, 158, 232),  # frost blue
    (226, 124, 186),  # fey pink
)
PANTS: tuple[Colour, ...] = (
    (206, 44, 44),  # red
    (56, 84, 214),  # blue
    (236, 200, 52),  # yellow
    (232, 232, 240),  # white
    (148, 64, 196),  # purple
    (36, 140, 84),  # green
)
HAIRS: tuple[Colour, ...] = (
    (134, 82, 40),  # short, brown
    (244, 206, 84),  # long, blond
    (226, 72, 32),  # spikes, red
    (150, 84, 222),  # ponytail, violet
    (206, 210, 222),  # afro, silver
    (64, 208, 96),  # mohawk, green
)
TOPS: tuple[Colour, ...] = (
    (236, 236, 236),  # striped sweater, white and red
    (244, 136, 36),  # T-shirt, orange
    (40, 190, 214),  # vest, cyan, bare arms
    (58, 150, 62),  # tunic, green with a belt
    (142, 150, 168),  # armour, steel with gold shoulders
    (190, 52, 136),  # coat, magenta, open over a white shirt
)
SHORT, LONG, SPIKES, PONYTAIL, AFRO, MOHAWK = range(6)
SWEATER, TSHIRT, VEST, TUNIC, ARMOUR, COAT = range(6)

_WHITE, _INK, _LIPS = (250, 250, 250), (28, 24, 40), (150, 40, 48)
_SHOE, _STEEL, _HILT, _GOLD = (206, 150, 92), (214, 222, 236), (176, 128, 40), (232, 184, 48)

# Depths; `Canvas.paint` uses two each, sleeves are two above their arm.
_HAIR_BEHIND, _FAR_ARM, _FAR_LEG = 4, 8, 14
_NEAR_LEG, _TRUNK, _HIPS, _CHEST = 22, 30, 34, 38
_ARM, _HAIR_SIDES, _HEAD, _FACE, _HAIR, _BLADE, _ARM_OVER = 48, 54, 58, 62, 66, 72, 76


def skin_layer(pose: Pose, value: int) -> Canvas:
    """Paint head, neck, hands and arms."""
    canvas, colour = Canvas(), SKINS[value]
    (hx, hy), front = pose.head, pose.view == "front"
    canvas.paint(ellipse(pose.head, 17, 18), colour, _HEAD)
    if front:
        for side in (-1, 1):
            canvas.paint(ellipse((hx + 9 * side, hy + 2), 3, 5), colour, _HEAD - 3)
    else:
        canvas.paint(rectangle(hx + 7, hy + 3, hx + 9, hy + 5), colour, _HEAD)
        canvas.paint(ellipse((hx - 2, hy + 2), 3, 5), colour, _HEAD + 2)
    canvas.paint(capsule((hx, hy + 8), pose.chest, 6), colour, _TRUNK)
    canvas.paint(_trunk(pose, 0), colour, _TRUNK)
    for limb in pose.arms:
        depth = _arm_depth(pose, limb)
        canvas.paint(
            capsule(limb.root, limb.joint, 5) | capsule(limb.joint, limb.end, 4) | _hand(pose, limb), colour, depth
        )
    return canvas


def pants_layer(pose: Pose, value: int) -> Canvas:
    """Paint both legs and the seat."""
    canvas, colour = Canvas(), PANTS[value]
    for limb, depth in zip(pose.legs, _leg_depths(pose), strict=True):
        ankle = (limb.end[0], limb.end[1] - 3)
        canvas.paint(capsule(limb.root, limb.joint, 7) | capsule(limb.joint, ankle, 6), colour, depth + 2)
    x, y = pose.hips
    half = 7 if pose.view == "front" else 5
    canvas.paint(rectangle(x - half, y - 2, x + half, y + 3), colour, _HIPS)
    return canvas


def top_layer(pose: Pose, value: int) -> Canvas:
    """Paint trunk and sleeves; every value has a different cut."""
    canvas, colour = Canvas(), TOPS[value]
    front = pose.view == "front"
    (cx, cy), (hx, hy) = pose.chest, pose.hips
    trunk = _trunk(pose, 1)
    half = 8 if front else 6
    if value == TUNIC:
        trunk |= polygon(
            (hx - half + 1, hy - 3), (hx + half - 1, hy - 3), (hx + half + 2, hy + 7), (hx - half - 2, hy + 7)
        )
    if value == VEST:
        trunk &= ~polygon((cx - 3, cy - 4), (cx + 3, cy - 4), (cx, cy + 4)) if front else ys > cy - 2
    canvas.paint(trunk, colour, _CHEST)
    if value == SWEATER:
        canvas.paint(trunk & ((ys - cy) % 5 < 2), (206, 52, 60), _CHEST + 2, outline=False)
    elif value == TUNIC:
        canvas.paint(trunk & (abs(ys - hy + 1) < 2), _GOLD, _CHEST + 2, outline=False)
    elif value == COAT:
        middle = abs(xs - cx) < 3 if front else xs > cx + 2
        canvas.paint(trunk & middle, _WHITE, _CHEST + 2, outline=False)
    elif value == ARMOUR:
        canvas.paint(trunk & (abs(ys - hy + 2) < 2), (84, 90, 108), _CHEST + 2, outline=False)
        if front:
            canvas.paint(ellipse((cx, cy + 4), 5, 5), _GOLD, _CHEST + 2, outline=False)
    for limb in pose.arms:
        _sleeve(canvas, value, limb, _arm_depth(pose, limb) + 2)
    return canvas


def hair_layer(pose: Pose, value: int) -> Canvas:
    """Paint the hair: six cuts, each in a different colour."""
    canvas, colour = Canvas(), HAIRS[value]
    (x, y), front = pose.head, pose.view == "front"
    behind = _HAIR_BEHIND if front else _HAIR_SIDES
    if value == MOHAWK:
        if front:
            crest = polygon((x, y - 18), (x + 3, y - 5), (x - 3, y - 5))
        else:
            crest = ellipse((x - 1, y - 2), 24, 28) & ~ellipse((x, y + 1), 17, 19) & (y + 3 > ys) & (x + 6 > xs)
            crest &= ((xs + ys // 2 - x - y // 2) % 5 != 0) | (y - 12 < ys)
        canvas.paint(crest, colour, _HAIR)
        return canvas
    if value == AFRO:
        middle = (x if front else x - 2, y - 3)
        ball = ellipse(middle, 22, 22)
        for dx, dy in ((-11, 5), (-12, -1), (-9, -7), (-4, -11), (2, -11), (8, -8), (11, -2), (11, 5)):
            ball = ball | ellipse((middle[0] + dx, middle[1] + dy), 8, 8)
        canvas.paint(ball & (y + 7 > ys), colour, behind)
        bangs = ball & ((y - 2 > ys) | ((x - 3 > xs) & (not front)) | ((abs(xs - x) > 8) & front)) & (y + 7 > ys)
        canvas.paint(bangs, colour, _HAIR)
        curls = bangs & (((xs - x) * 2 + (ys - y) * 3) % 7 == 0) & ((ys - y) % 2 == 0)
        canvas.flat(curls, (142, 148, 170), _HAIR + 2)
        return canvas
    canvas.paint(_cap(pose, deep=value == LONG), colour, _HAIR)
    if value == LONG:
        if front:
            canvas.paint(polygon((x - 10, y - 4), (x + 10, y - 4), (x + 12, y + 19), (x - 12, y + 19)), colour, behind)
            for side in (-1, 1):
                canvas.paint(capsule((x + 9 * side, y), (x + 9 * side, y + 14), 4), colour, _HAIR_SIDES)
        else:
            canvas.paint(polygon((x - 8, y - 4), (x - 1, y - 4), (x - 2, y + 20), (x - 11, y + 20)), colour, behind)
    elif value == SPIKES:
        for dx, top, lean in ((-7, -13, -5), (-3, -17, -2), (2, -18, 1), (6, -14, 5)):
            canvas.paint(_spike((x + dx, y - 5), (x + dx + lean, y + top)), colour, _HAIR)
        if not front:
            canvas.paint(_spike((x - 7, y), (x - 15, y - 4)) | _spike((x - 7, y + 3), (x - 13, y + 5)), colour, _HAIR)
    elif value == PONYTAIL:
        if front:
            canvas.paint(ellipse((x, y - 12), 9, 8), colour, _HAIR - 2)
            canvas.paint(capsule((x + 8, y - 3), (x + 14, y + 8), 5), colour, behind)
        else:
            canvas.paint(ellipse((x - 9, y - 8), 8, 8), colour, _HAIR - 2)
            canvas.paint(capsule((x - 11, y - 6), (x - 15, y + 8), 5), colour, behind)
    return canvas


def common_layer(pose: Pose) -> Canvas:
    """Paint the parts that all characters share: face, shoes, and the blade of a slash."""
    canvas = Canvas()
    (x, y), front = pose.head, pose.view == "front"
    for eye in (-4, 4) if front else (5,):
        if pose.eyes_closed:
            canvas.flat(rectangle(x + eye - 1, y + 3, x + eye + 1, y + 3), _INK, _FACE)
        else:
            canvas.flat(rectangle(x + eye - 1, y + 1, x + eye + 1, y + 4), _WHITE, _FACE)
            left = x + eye - (1 if front and eye > 0 else 0)
            canvas.flat(rectangle(left, y + 1, left + 1, y + 4), _INK, _FACE + 1)
    canvas.flat(rectangle(x - 1, y + 7, x + 1, y + 7) if front else rectangle(x + 4, y + 7, x + 6, y + 7), _LIPS, _FACE)
    for limb, depth in zip(pose.legs, _leg_depths(pose), strict=True):
        (fx, fy) = limb.end
        shoe = ellipse((fx, fy + 1), 8, 6) if front else capsule((fx - 1, fy), (fx + 3, fy + 1), 5) & (ys < fy + 3)
        canvas.paint(shoe, _SHOE, depth)
    if pose.blade is not None:
        (hx, hy), (bx, by) = pose.arms[0].end, pose.blade
        canvas.paint(capsule((hx, hy), (hx + bx, hy + by), 3), _STEEL, _BLADE)
        guard = (hx + bx // 4, hy + by // 4)
        canvas.paint(
            capsule((guard[0] - by // 5, guard[1] + bx // 5), (guard[0] + by // 5, guard[1] - bx // 5), 2),
            _HILT,
            _BLADE + 2,
        )
    return canvas


def _trunk(pose: Pose, wider: int) -> Mask:
    """The trunk from the shoulders to the hips."""
    (cx, cy), (hx, hy) = pose.chest, pose.hips
    shoulder, waist = (7, 6) if pose.view == "front" else (4, 4)
    return polygon(
        (cx - shoulder - wider, cy - 1),
        (cx - shoulder + 2, cy - 3),
        (cx + shoulder - 2, cy - 3),
        (cx + shoulder + wider, cy - 1),
        (hx + waist + wider, hy),
        (hx - waist - wider, hy),
    )


def _sleeve(canvas: Canvas, value: int, limb: Limb, depth: int) -> None:
    upper = capsule(limb.root, limb.joint, 6)
    if value == VEST:
        return
    if value == ARMOUR:
        canvas.paint(ellipse(limb.root, 9, 8), _GOLD, depth)
        return
    if value == TSHIRT:
        middle = ((limb.root[0] + limb.joint[0]) // 2, (limb.root[1] + limb.joint[1]) // 2)
        canvas.paint(capsule(limb.root, middle, 7), TOPS[value], depth)
        return
    wrist = _between(limb.joint, limb.end, 2, 3)
    sleeve = upper | capsule(limb.joint, wrist, 5 if value != COAT else 6)
    canvas.paint(sleeve, TOPS[value], depth)
    if value == SWEATER:
        canvas.paint(sleeve & ((ys - limb.root[1]) % 5 < 2), (206, 52, 60), depth, outline=False)


def _hand(pose: Pose, limb: Limb) -> Mask:
    """A fist, or fingers spread away from the elbow."""
    x, y = limb.end
    fist = ellipse(limb.end, 5, 5)
    if not pose.open_hands:
        return fist
    dx, dy = x - limb.joint[0], y - limb.joint[1]
    scale = max(abs(dx), abs(dy), 1)
    fingers = fist
    for turn in (-1, 0, 1):
        tip = (x + (4 * dx - 3 * turn * dy) // scale, y + (4 * dy + 3 * turn * dx) // scale)
        fingers = fingers | capsule(limb.end, tip, 1)
    return fingers


def _cap(pose: Pose, *, deep: bool) -> Mask:
    """Hair that follows the skull: a fringe in front, and from the side the back of the head."""
    (x, y) = pose.head
    skull = ellipse((x, y - 1), 20, 20)
    if pose.view == "front":
        fringe = ys < y - 3 + (xs - x) // 5 + ((xs - x) % 4 == 0)
        sides = (abs(xs - x) > 7) & (y + (4 if deep else 1) > ys)
        front: Mask = skull & (fringe | sides)
        return front
    side: Mask = skull & ((ys < y - 3 + (xs - x) // 5) | ((x - 3 - (ys - y) // 4 > xs) & (y + 7 > ys)))
    return side


def _spike(base: Point, tip: Point) -> Mask:
    """A triangle three pixels to either side of `base`, up to `tip`."""
    steps = 6
    mask = ellipse(base, 7, 7)
    for step in range(steps):
        mask = mask | ellipse(_between(base, tip, step, steps), 7 - step, 7 - step)
    return mask


def _between(start: Point, end: Point, part: int, of: int) -> Point:
    return (start[0] + (end[0] - start[0]) * part // of, start[1] + (end[1] - start[1]) * part // of)


def _arm_depth(pose: Pose, limb: Limb) -> int:
    if limb.over:
        return _ARM_OVER
    far = limb.behind or (pose.view == "side" and limb is pose.arms[1])
    return _FAR_ARM if far else _ARM


def _leg_depths(pose: Pose) -> tuple[int, int]:
    """Shoe depths; the trouser leg is two above its shoe."""
    if pose.view == "side":
        return _NEAR_LEG, _FAR_LEG
    left_ahead = pose.legs[0].end[1] >= pose.legs[1].end[1]
    return (_NEAR_LEG, _FAR_LEG) if left_ahead else (_FAR_LEG, _NEAR_LEG)
