"""Render the crops on which every face recogniser is checked: two of each of eight rendered people, aligned.

    python plugins/faces/tools/draw_check_crops.py plugins/faces/bcd_bench_faces/recognition/data/check_crops.png

People of the training split, heads turned by 8 degrees to either side, with two expressions; upper row and lower row.
"""

from __future__ import annotations

import sys

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from bcd_bench.types.errors import UsageError
from bcd_bench_faces.dense_landmarks.detector import DenseLandmarker
from bcd_bench_faces.landmarks.alignment import aligned_crop, dense_five_points
from bcd_bench_faces.recognition.recogniser import PEOPLE
from bcd_bench_faces.synthesis.renderer import Actor
from bcd_bench_faces.synthesis.sampling import identity_of, look_of, motion_of

SHOWN = ((3, -8.0), (14, 8.0))
"""Frame of the motion whose expression is shown, and degrees of yaw."""


def crops_of(person: int, landmarker: DenseLandmarker) -> list[npt.NDArray[np.uint8]]:
    """Two crops uint8[112, 112, 3] RGB."""
    actor, motion = Actor(identity_of("train", person), look_of("train", person)), motion_of("train", person, 25)
    crops = []
    for frame, yaw in SHOWN:
        turned = Rotation.from_euler("y", yaw, degrees=True).as_matrix()[None].astype(np.float32)
        [image] = actor.frames(motion.expression[frame : frame + 1], turned, motion.translation[:1], 256)
        face = landmarker.detect(image)
        if face is None:
            raise UsageError(f"no face was found in person {person} at {yaw:g} degrees")
        crops.append(aligned_crop(image, dense_five_points(face.points.astype(np.float32))))
    return crops


def main() -> None:
    landmarker = DenseLandmarker()
    people = [crops_of(person, landmarker) for person in range(PEOPLE)]
    rows = [np.concatenate([crops[row] for crops in people], axis=1) for row in range(len(SHOWN))]
    picture = np.ascontiguousarray(np.concatenate(rows)[..., ::-1])
    if not cv2.imwrite(sys.argv[1], picture, [cv2.IMWRITE_PNG_COMPRESSION, 9]):
        raise UsageError(f"{sys.argv[1]} cannot be written")


if __name__ == "__main__":
    main()
