"""Our procedural characters, with the factors of the LPC art; they require no files."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bcd_bench_sprites import figure
from bcd_bench_sprites.drawing import Canvas
from bcd_bench_sprites.factors import ACTIONS, DIRECTIONS, FRAMES, SIZE, VALUES
from bcd_bench_sprites.layers import Layer, LayeredCharacters
from bcd_bench_sprites.poses import Pose, pose

__all__ = ["WHOLE_SET_SHA256", "ProceduralCharacters"]

WHOLE_SET_SHA256 = "0e56549ccdfbac389436f989d96e567364538692d16acc5884eed1bb74b6034b"
"""Hash of uint8[1296, 9, 8, 64, 64, 3]. Changed pixels require a new suite version, classifier and results."""


class ProceduralCharacters(LayeredCharacters):
    """1,296 characters x 9 motions; rendering all layers takes about a second, a clip then well under a millisecond."""

    def __init__(self) -> None:
        painters = (figure.skin_layer, figure.pants_layer, figure.top_layer, figure.hair_layer)
        layers = [np.stack([_draw(painter, value) for value in range(VALUES)]) for painter in painters]
        super().__init__("sprites-procedural", layers, _draw(lambda now, _: figure.common_layer(now), 0))


def _draw(painter: Callable[[Pose, int], Canvas], value: int) -> Layer:
    """uint32[9, 8, 64, 64]: one value of one attribute in all motions and frames."""
    out = np.empty((len(ACTIONS), len(DIRECTIONS), FRAMES, SIZE, SIZE), np.uint32)
    for number, action in enumerate(ACTIONS):
        for frame in range(FRAMES):
            out[number, DIRECTIONS.index("front"), frame] = painter(pose(action, "front", frame), value).pixels
            right = painter(pose(action, "side", frame), value).pixels
            out[number, DIRECTIONS.index("right"), frame] = right
            out[number, DIRECTIONS.index("left"), frame] = right[:, ::-1]
    return out.reshape(-1, FRAMES, SIZE, SIZE)
