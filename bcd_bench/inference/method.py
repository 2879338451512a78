"""A method with its weights on a device, for transfers of single clips."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

from bcd_bench.assets.store import AssetStore
from bcd_bench.assets.weights import ResolvedWeights, assets_present, default_note, resolve_weights
from bcd_bench.inference.prepare import Cropper, PreparedClip, prepare, preprocessor_of
from bcd_bench.inference.source import Source, open_source
from bcd_bench.inference.write import Output, provenance, write_output
from bcd_bench.io.inputs import InMemory
from bcd_bench.plugin.loading import load_factory, plugin_code
from bcd_bench.plugin.objects import add_method
from bcd_bench.plugin.registry import Registry, load_registry
from bcd_bench.run.executor import Batch, Work, close_method, run_batch
from bcd_bench.run.executor import load_method as load_work
from bcd_bench.run.plan import resolved_config
from bcd_bench.scoring.features import needed_extractors
from bcd_bench.types.clip import Clip, ClipRef
from bcd_bench.types.errors import TransferError, UsageError
from bcd_bench.types.failed import Failed
from bcd_bench.types.pair import Pair
from bcd_bench.util.devices import device_name

if TYPE_CHECKING:
    from types import TracebackType

    from bcd_bench.plugin.specs import MethodSpec, WeightsRecipe

__all__ = ["LoadedMethod", "crops_any_clip", "load_method"]

PAIR = "transfer"
"""Id of the pair, from which the seed of its noise is derived."""


class LoadedMethod:
    """A method with its weights on a device, for `transfer`. Can be used as a context manager, which closes it."""

    def __init__(
        self,
        name: str,
        method: Any,
        *,
        tags: Mapping[str, str] | None = None,
        cropper: Cropper | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.notes = notes
        """Notes for the user, such as why clips are not cropped."""
        self._method = method
        self._tags = dict(tags or {})
        self._cropper = cropper

    @property
    def frame_size(self) -> tuple[int, int] | None:
        """(height, width) in pixels of the clips that the method accepts; None if it accepts any size."""
        size = getattr(self._method, "frame_size", None)
        return None if size is None else (int(size[0]), int(size[1]))

    @property
    def preprocessor(self) -> str:
        """The name of the preprocessor that crops files for the method; empty if it needs none."""
        return "" if self._cropper is None else self._cropper.spec.name

    def transfer(
        self,
        content: Any,
        motion: Any,
        *,
        output: str | PathLike[str] | None = None,
        seed: int = 0,
        size: tuple[int, int] | None = None,
        crop: bool | None = None,
        frames: int | None = None,
        side_by_side: bool = False,
        paste_back: bool = False,
        audio: bool = True,
    ) -> Clip:
        """As `bcd_bench.transfer`."""
        options = Output(side_by_side, paste_back, audio)
        self.check(open_source(content, "content"), options, crop=crop)
        driving = self.prepare_motion(open_source(motion, "motion"), size=size, crop=crop, frames=frames)
        source = self.prepare_content(open_source(content, "content"), driving, crop=crop)
        result = self.run(source, driving, seed=seed)
        if output is not None:
            write_output(output, result, source, driving, options, self.tags(seed))
        return result

    def check(self, content: Source, options: Output, *, crop: bool | None = None) -> None:
        """Raise `UsageError` for options that do not fit the content or the method."""
        if crop and self._cropper is None:
            raise UsageError(f"crop=True: method {self.name!r} with these weights has no preprocessor")
        if options.paste_back and not self._crops(content, crop):
            why = "is not cropped" if self._cropper else f"is not cropped for method {self.name!r} with these weights"
            raise UsageError(f"--paste-back needs a content clip that is cropped, but {content.name} {why}")

    def _crops(self, source: Source, crop: bool | None) -> bool:
        """Whether a source is cropped: files are by default, clips from memory are taken as they are."""
        return self._cropper is not None and (source.path is not None if crop is None else crop)

    def prepare_motion(
        self,
        source: Source,
        *,
        size: tuple[int, int] | None = None,
        crop: bool | None = None,
        frames: int | None = None,
    ) -> PreparedClip:
        """The driving clip as the method expects it. Raises `UsageError`, also for files of fewer than two frames."""
        if source.is_photo:
            raise UsageError(
                f"{source.name} is a photo; the driving clip must be a video", hint="pass it as the content"
            )
        crops = self._crops(source, crop)
        spec = None if self._cropper is None else self._cropper.spec
        fps = source.fps if spec is None or source.path is None else spec.fps
        if size is None:
            size = self.frame_size or (spec.size if spec is not None and crops else None)
        if size is None:
            height, width = source.first().shape[:2]
            size = (height, width)
        prepared = prepare(source, size, fps, cropper=self._cropper if crops else None, limit=frames)
        if source.path is not None and len(prepared.clip) < 2:
            raise UsageError(
                f"{source.name} has only one frame at {fps:g} per second; a driving clip needs two or more"
            )
        return prepared

    def prepare_content(self, source: Source, motion: PreparedClip, *, crop: bool | None = None) -> PreparedClip:
        """The content clip in the size and at the rate of the driving clip."""
        height, width = motion.clip.frames.shape[1:3]
        cropper = self._cropper if self._crops(source, crop) else None
        return prepare(source, (height, width), motion.clip.fps, cropper=cropper)

    def run(self, content: PreparedClip, motion: PreparedClip, *, seed: int = 0) -> Clip:
        """Transfer one pair of prepared clips. Raises `TransferError` with the reason if the method fails."""
        height, width = motion.clip.frames.shape[1:3]
        pair = Pair(PAIR, _reference("content", content.clip), _reference("motion", motion.clip))
        outcome = run_batch(self._method, Batch(0, [pair]), seed=seed, size=(height, width))
        [result] = outcome.results
        if isinstance(result, Failed):
            raise TransferError(f"{self.name}: {result.reason}")
        assert isinstance(result, Clip), "only executors encode outputs"
        return result

    def tags(self, seed: int) -> dict[str, str]:
        """The provenance of an output, as metadata of its file."""
        return {**self._tags, "seed": str(seed)}

    def close(self) -> None:
        """Release the method's resources, such as processes."""
        close_method(self._method)

    def __enter__(self) -> LoadedMethod:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _reference(name: str, clip: Clip) -> ClipRef:
    return ClipRef(name, InMemory(clip), frames=len(clip))


def load_method(
    method: str | Any,
    *,
    weights: str | PathLike[str] | None = None,
    suite: str | None = None,
    device: str = "cpu",
    settings: Mapping[str, Any] | None = None,
) -> LoadedMethod:
    """Load a method by name, or an object or function (see `evaluate`), for `transfer`.

    `weights` is a name or a path; by default, those for `suite`, else for suites that crop any clip, or the only ones.
    `settings` are those of `bcd-bench run --set`. Raises `UsageError` for unknown names and settings, and
    `MissingAssetError` for files that are missing or altered.
    """
    registry = load_registry()
    name = method if isinstance(method, str) else add_method(registry, method)
    spec = registry.method(name)
    store = AssetStore(registry)
    config = resolved_config(spec, settings or {})
    choice, fallback = None if weights is None else str(weights), ""
    seeded = bool(spec.seeded_by) and config.get(spec.seeded_by) is not None
    if choice is None and suite is None and spec.weights and not seeded:
        choice, fallback = _default_weights(registry, spec, store)
    elif choice is None and suite is not None and not seeded:
        fallback = default_note(spec, suite, store)
    for asset in spec.assets:
        store.find(asset)
    resolved = None if seeded else resolve_weights(spec, suite or "", choice, store)
    extractors = tuple(needed_extractors(registry, spec.extractors))
    for extractor in extractors:
        for asset in extractor.assets:
            store.find(asset)
    preprocessor, note = preprocessor_of(registry, spec, suites=_suites(spec, resolved))
    path = None if resolved is None else resolved.path
    work = Work(name, spec.factory, config, path, device_name(device), 0, (0, 0), extractors)
    return LoadedMethod(
        name,
        load_work(work),
        tags=provenance(spec, resolved, seeded=seeded),
        cropper=None if preprocessor is None else Cropper(registry, preprocessor),
        notes=tuple(text for text in (note, fallback) if text),
    )


def _default_weights(registry: Registry, spec: MethodSpec, store: AssetStore) -> tuple[str, str]:
    """The name of the method's only weights, or of the first for suites that crop any clip whose assets are present;
    and why others are not used, if they are preferred. Raises `UsageError` if it has several, all for particular
    clips."""
    names = [option.name for option in spec.weights]
    general = {
        option.name: [name for name in option.suites if crops_any_clip(registry, name)]
        for option in sorted(spec.weights, key=lambda option: not assets_present(option, store))
    }
    general = {name: suites for name, suites in general.items() if suites}
    if len(names) > 1 and not general:
        raise UsageError(
            f"method {spec.name!r} has several sets of weights: {', '.join(names)}",
            hint=f"--weights {names[0]} (or weights=… in Python)",
        )
    chosen = [*general, *names][0]
    notes = (default_note(spec, suite, store) for suite in general.get(chosen, ()))
    return chosen, next((note for note in notes if note), "")


def crops_any_clip(registry: Registry, suite: str) -> bool:
    """Whether a suite is installed that has a preprocessor, so that weights for it fit clips of any size."""
    return suite in registry.suites and bool(registry.suites[suite].preprocessor)


def _suites(spec: MethodSpec, resolved: ResolvedWeights | None) -> tuple[str, ...]:
    """The suites that the weights are for: as declared, or as the weights themselves state."""
    if resolved is None:
        return ()
    for option in spec.weights:
        if option.name == resolved.name and option.sha256 in (None, resolved.sha256):
            return option.suites
    if not spec.describe_weights:
        return ()
    with plugin_code(f"method {spec.name!r}", "cannot describe its weights"):
        recipe: WeightsRecipe = load_factory(spec.describe_weights)(resolved.path)
        return (recipe.suite,) if recipe.suite else ()
