"""The metrics `aed-3ddfa` and `apd-3ddfa`: expression and pose by 3DDFA_V2 against those of the driving clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from bcd_bench.plugin.protocols import Scored
from bcd_bench.plugin.specs import Column
from bcd_bench.types.failed import Failed
from bcd_bench_faces.assets import TDDFA, TDDFA_SCALE
from bcd_bench_faces.metrics.frame_coverage import AgainstDriver, against_driver
from bcd_bench_faces.metrics.head_rotation import angle_between
from bcd_bench_faces.tddfa.extractor import TDDFA_EXTRACTOR
from bcd_bench_faces.tddfa.network import angles_of

__all__ = ["AED", "APD", "angle_differences"]

Floats = npt.NDArray[np.float64]
ANGLES = ("yaw", "pitch", "roll")
BY = "by 3DDFA_V2 (MobileNet, width 0.5)"


class _By3DDFA(AgainstDriver):
    """Several columns from one feature of `tddfa`; the first is shown in tables."""

    extractor = TDDFA_EXTRACTOR
    details: ClassVar[tuple[Column, ...]]
    """The other columns."""

    def __init__(self) -> None:
        super().__init__()
        share, name = self._frames.name, self.column.name
        target, target_share = f"{name}-target", f"{name}-target-frames"
        self.columns = (
            self.columns[0],
            *(replace(column, frames=share) for column in self.details),
            self._frames,
            Column(
                target,
                self.column.unit,
                False,
                f"{name} against the ground-truth target instead of the driver.",
                decimals=self.column.decimals,
                headline=False,
                frames=target_share,
            ),
            replace(
                self._frames,
                name=target_share,
                definition=f"Share of the frames that {target} rests on: of those in which the target has a face, "
                "those in which the output has one as well.",
            ),
        )

    def _row(self, item: Scored) -> Mapping[str, Any] | Failed:
        """The row against the driving clip; the two columns against the target do not apply without one."""
        row = super()._row(item)
        if isinstance(row, Failed):
            return row
        target, target_share = (column.name for column in self.columns[-2:])
        if item.pair.target is None:
            return {**row, target: None, target_share: None}
        comparison = against_driver(item, self.feature, self.extractor, "target")
        if isinstance(comparison, Failed):
            return row  # the values that are missing count as failed
        output, reference, share = comparison
        return {**row, target: self.values(output, reference)[self.column.name], target_share: share}

    def load(self, device: str) -> None:
        """Check for the two assets, which the extractor uses. Raises `MissingAssetError`."""
        from bcd_bench.assets.store import AssetStore
        from bcd_bench.plugin.registry import load_registry

        del device
        store = AssetStore(load_registry())
        for asset in (TDDFA, TDDFA_SCALE):
            store.find(asset.name)


class AED(_By3DDFA):
    """Average expression distance."""

    feature = "expression"
    column = Column(
        "aed-3ddfa",
        "σ",
        False,
        f"Mean over frames and the 10 expression coefficients {BY} of the absolute difference between output and "
        "driver, in standard deviations of 3DDFA_V2's training data.",
        decimals=3,
    )
    details = (
        Column(
            "aed-3ddfa-l2",
            "σ",
            False,
            f"Mean over frames of the Euclidean distance between the 10 expression coefficients {BY} of output and "
            "driver, in standard deviations of 3DDFA_V2's training data.",
            decimals=3,
            headline=False,
        ),
    )

    def values(self, output: Floats, driver: Floats) -> Mapping[str, float]:
        """Both distances of coefficients [T, 10]."""
        difference = output - driver
        return {
            "aed-3ddfa": float(np.abs(difference).mean()),
            "aed-3ddfa-l2": float(np.linalg.norm(difference, axis=1).mean()),
        }


class APD(_By3DDFA):
    """Average pose distance."""

    feature = "rotation"
    column = Column(
        "apd-3ddfa",
        "deg",
        False,
        f"Mean over frames and over yaw, pitch and roll {BY} of the absolute difference between the output's head and "
        "the driver's.",
    )
    details = (
        *(
            Column(
                f"apd-3ddfa-{angle}",
                "deg",
                False,
                f"Mean over frames of the absolute difference of the {angle} {BY} between output and driver.",
                headline=False,
            )
            for angle in ANGLES
        ),
        Column(
            "apd-3ddfa-angle",
            "deg",
            False,
            f"Mean over frames of the angle of the rotation between the output's head and the driver's, {BY}: the "
            "definition of ard.",
            headline=False,
        ),
    )

    def values(self, output: Floats, driver: Floats) -> Mapping[str, float]:
        """All distances of rotations [T, 3, 3]."""
        differences = angle_differences(output, driver).mean(axis=0)
        return {
            "apd-3ddfa": float(differences.mean()),
            **{f"apd-3ddfa-{angle}": float(value) for angle, value in zip(ANGLES, differences, strict=True)},
            "apd-3ddfa-angle": float(angle_between(output, driver).mean()),
        }


def angle_differences(output: Floats, driver: Floats) -> Floats:
    """Absolute differences float64[T, 3] of yaw, pitch and roll in degrees, 0..180, of rotations [T, 3, 3]."""
    difference = angles_of(output) - angles_of(driver)
    return np.asarray(np.abs((difference + 180) % 360 - 180))
