"""Overlays: landmarks and meshes over the videos of a gallery, from the cached features that metrics use."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bcd_bench.assets.hashing import hash_json
from bcd_bench.io.atomic import write_text_atomic
from bcd_bench.plugin.loading import load_code, plugin_code
from bcd_bench.run.folder import writing
from bcd_bench.scoring.features import FeatureStore, needed_extractors
from bcd_bench.types.errors import BcdBenchError, MissingDependencyError, UsageError
from bcd_bench.types.failed import Failed

if TYPE_CHECKING:
    from bcd_bench.plugin.protocols import Overlay
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.plugin.specs import ExtractorSpec
    from bcd_bench.types.clip import Clip
    from bcd_bench.util.progress import Progress
    from bcd_bench.view.previews import Preview

__all__ = ["Overlays", "Shown", "encode_points"]

ENCODING = 1
"""Part of every name; increase it if points are written in another way."""
STEPS = 1024
"""Positions are rounded to this fraction of the longer side of the frame."""
NONE = -32768
"""Stands for a coordinate of a point that a frame does not have."""
FARTHEST = 8 * STEPS
"""Points outside the frame are kept up to this distance from its corner, so that they fit into 16 bits."""


@dataclass
class Shown:
    """An overlay that a page offers: its name, the metrics that use it, its lines, and the points of each clip.

    `points` maps the key of a preview to the name of its file of points, or to `Failed` with the reason why there are
    none.
    """

    name: str
    summary: str
    metrics: tuple[str, ...]
    lines: list[int] = field(default_factory=list)
    points: dict[str, str | Failed] = field(default_factory=dict)


def encode_points(points: npt.NDArray[np.floating], size: tuple[int, int]) -> str:
    """`points` float[T, N, 2] in pixels of frames of `size` (height, width) as text: N, and base64 of zlib.

    Positions are rounded to a `STEPS`-th of the longer side, as uint16 differences from the previous frame; the low
    bytes of x [T, N] and y [T, N] come first, then the high bytes. Raises `ValueError` for another shape.
    """
    if points.ndim != 3 or points.shape[2] != 2:
        raise ValueError(f"points must be [T, N, 2], not {list(points.shape)}")
    steps = np.clip(np.nan_to_num(points) * (STEPS / max(size)), -FARTHEST, FARTHEST).round()
    whole = np.where(np.isfinite(points), steps, NONE).astype(np.int16).view(np.uint16)
    changes = np.diff(whole, axis=0, prepend=np.zeros_like(whole[:1])).transpose(2, 0, 1)
    planes = (changes & 255).astype(np.uint8).tobytes() + (changes >> 8).astype(np.uint8).tobytes()
    return f"{points.shape[1]} {base64.b64encode(zlib.compress(planes, 9)).decode()}"


class Overlays:
    """The files of points in a folder, and which overlays can be shown.

    `metrics` are those of the runs. An overlay is offered if a metric uses its extractor and the features of all
    outputs are cached. With `chosen`, these overlays are offered, and missing features are extracted. `notes` say in
    one line each which overlays are left out, and the command that adds them.
    """

    def __init__(
        self,
        folder: Path,
        registry: Registry,
        metrics: Sequence[str],
        chosen: Sequence[str] | None,
        store: FeatureStore,
    ) -> None:
        self.folder = folder
        self.shown: list[Shown] = []
        self.notes: list[str] = []
        self._store = store
        self._extracts = chosen is not None
        self._specs = list(_candidates(registry, metrics, chosen))

    def make(
        self,
        previews: Mapping[str, Preview],
        outputs: frozenset[str],
        clips: Mapping[str, Callable[[], Clip]],
        progress: Progress,
    ) -> None:
        """Write the points of the clips with these previews; `outputs` are the keys of the outputs of runs.

        Raises `UsageError` if the folder cannot be written, and, for overlays that were chosen, `BcdBenchError` if
        their extractor lacks something.
        """
        if not self._specs or not previews:
            return
        with progress.task("overlays", total=len(previews) * len(self._specs), done=0, unit="clips") as task:
            for spec, metrics in self._specs:
                try:
                    shown, missing = self._of(spec, metrics, previews, outputs, clips, task.advance)
                except BcdBenchError as error:
                    if self._extracts:
                        raise
                    self.notes.append(f"overlay {spec.name} is left out: {error}")
                    continue
                if missing:
                    self.notes.append(
                        f"overlay {spec.name} is left out: features of {missing} of {len(outputs)} outputs are not "
                        f"cached; bcd-bench view RUN --overlay {spec.name} extracts them"
                    )
                elif shown.points:
                    self.shown.append(shown)

    def text(self, name: str) -> str:
        """What a file of points contains, without the style sheet around it."""
        return (self.folder / name).read_text(encoding="ascii").split('"')[1]

    def _of(
        self,
        spec: ExtractorSpec,
        metrics: tuple[str, ...],
        previews: Mapping[str, Preview],
        outputs: frozenset[str],
        clips: Mapping[str, Callable[[], Clip]],
        advance: Callable[[], Any],
    ) -> tuple[Shown, int]:
        """The overlay, and how many outputs lack features."""
        shown, missing = Shown(spec.name, spec.summary, metrics), 0
        draw = load_code(spec.overlay, f"overlay {spec.name!r}")
        try:
            identity = self._store.identity(spec.name)
        except ImportError as error:
            raise MissingDependencyError(f"extractor {spec.name!r} needs the package {error.name!r}") from error
        known_lines = False
        for key, preview in previews.items():
            advance()
            name = f"{hash_json([ENCODING, spec.overlay, identity, preview.sha256])[:32]}.css"
            if known_lines and (self.folder / name).is_file():
                shown.points[key] = name
                continue
            features = self._store.cached(spec.name, preview.sha256)
            if features is None and self._extracts:
                features = self._store.get(spec.name, [clips[key]()])[0]
            if features is None:
                missing += key in outputs
            elif isinstance(features, Failed):
                shown.points[key] = features
            else:
                overlay = _drawn(draw, spec, features, preview)
                shown.lines, known_lines = np.array(overlay.lines, int).ravel().tolist(), True
                self._write(name, encode_points(overlay.points, preview.size))
                shown.points[key] = name
        return shown, missing

    def _write(self, name: str, text: str) -> None:
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            # A style sheet, since browsers let a page read no other kind of file next to it without running it.
            property_ = f"--p{name.removesuffix('.css')}"
            write_text_atomic(self.folder / name, f'#points {{ {property_}: "{text}"; }}\n')


def _drawn(draw: Any, spec: ExtractorSpec, features: Mapping[str, Any], preview: Preview) -> Overlay:
    with plugin_code(f"overlay {spec.name!r}", "failed"):
        overlay: Overlay = draw(features, preview.size)
        shape = np.shape(overlay.points)
        if len(shape) != 3 or shape[0] != preview.frames or shape[2] != 2:
            raise ValueError(f"it has points {list(shape)} for {preview.frames} frames, not [T, N, 2]")
        if any(not 0 <= end < shape[1] for line in overlay.lines for end in line):
            raise ValueError(f"a line ends at a point other than 0 to {shape[1] - 1}")
    return overlay


def _candidates(
    registry: Registry, metrics: Sequence[str], chosen: Sequence[str] | None
) -> Iterator[tuple[ExtractorSpec, tuple[str, ...]]]:
    """The extractors with an overlay, each with the metrics that use it. Raises `UsageError` for an unknown name."""
    used: dict[str, list[str]] = {}
    for metric in metrics:
        if metric in registry.metrics:
            for spec in needed_extractors(registry, registry.metrics[metric].extractors):
                used.setdefault(spec.name, []).append(metric)
    known = {name: spec for name, spec in registry.extractors.items() if spec.overlay}
    for name in chosen or ():
        if name not in known:
            raise UsageError(
                f"--overlay {name}: there is no such overlay; there is {', '.join(sorted(known)) or 'none'}"
            )
    for name in used if chosen is None else chosen:
        if name in known:
            yield known[name], tuple(dict.fromkeys(used.get(name, ())))
