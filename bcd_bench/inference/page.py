"""The page of `bcd-bench demo`: upload a photo and a video, choose a method, see the result. Needs Gradio."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcd_bench.assets.store import AssetStore
from bcd_bench.assets.weights import assets_present, weights_path
from bcd_bench.inference.method import LoadedMethod, crops_any_clip, load_method
from bcd_bench.types.errors import BcdBenchError, MissingAssetError, MissingDependencyError

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry

__all__ = ["Choice", "Demo", "build_page", "choices", "gradio"]

Choice = tuple[str, str | None]
"""A method, and the name of its weights if it has any."""
MOST_FRAMES = 1000
NOTICE = (
    "Animate only people who have agreed to it, and label what you publish. Outputs are marked as synthetic in their "
    "metadata. Files go to the machine that runs this page, and nowhere else."
)


def gradio() -> Any:
    """The module gradio. Raises `MissingDependencyError` if it is not installed."""
    import os

    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # no request to another server
    try:
        import gradio as module
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise MissingDependencyError(
            "the demo needs the package 'gradio'", hint='pip install "bcd-bench[demo]"'
        ) from None
    return module


def choices(registry: Registry) -> tuple[dict[str, Choice], list[str]]:
    """Label -> method and weights, for everything that can run; and the names of methods whose files are missing.

    Reference methods, and methods that need settings, are left out. Weights for clips of any size come first.
    """
    store = AssetStore(registry)
    usable: dict[str, Choice] = {}
    missing: list[str] = []
    for name, spec in sorted(registry.methods.items()):
        if spec.reference or (spec.identify and not spec.weights):
            continue
        try:
            for asset in spec.assets:
                store.find(asset)
            if not spec.weights:
                usable[name] = (name, None)
            for weights in spec.weights:
                if not assets_present(weights, store):
                    continue
                weights_path(weights, store)
                usable[f"{name} ({weights.name})" if len(spec.weights) > 1 else name] = (name, weights.name)
        except MissingAssetError:
            missing.append(name)

    def cropped(choice: Choice) -> bool:
        spec = registry.methods[choice[0]]
        suites = next((weights.suites for weights in spec.weights if weights.name == choice[1]), ())
        return bool(spec.preprocessor) or any(crops_any_clip(registry, suite) for suite in suites)

    return dict(sorted(usable.items(), key=lambda item: not cropped(item[1]))), missing


class Demo:
    """The transfers of one server. Outputs go to `folder`; the last method stays loaded."""

    def __init__(self, usable: dict[str, Choice], folder: Path, device: str) -> None:
        self._usable, self._folder, self._device = usable, folder, device
        self._numbers = itertools.count(1)
        self._loaded: tuple[Choice, LoadedMethod] | None = None

    def transfer(
        self, content: str, motion: str, label: str, *, frames: int, crop: bool, side_by_side: bool, paste_back: bool
    ) -> Path:
        """The output file. Raises `BcdBenchError` as `LoadedMethod.transfer` does."""
        method = self._method(self._usable[label])
        output = self._folder / f"transfer-{next(self._numbers)}.mp4"
        method.transfer(
            content,
            motion,
            output=output,
            frames=frames,
            crop=None if crop else False,
            side_by_side=side_by_side,
            paste_back=paste_back,
        )
        return output

    def _method(self, choice: Choice) -> LoadedMethod:
        if self._loaded is None or self._loaded[0] != choice:
            self.close()
            self._loaded = choice, load_method(choice[0], weights=choice[1], device=self._device)
        return self._loaded[1]

    def close(self) -> None:
        """Release the loaded method."""
        if self._loaded is not None:
            self._loaded[1].close()
            self._loaded = None


def build_page(demo: Demo, usable: dict[str, Choice], missing: list[str]) -> Any:
    """The `gradio.Blocks` of the page."""
    gr = gradio()

    def submit(
        content: str | None, motion: str | None, label: str, frames: float, crop: bool, shown: str
    ) -> tuple[str, str]:
        if not content or not motion:
            raise gr.Error("Choose a photo or clip, and a driving video.", title="Nothing to do")
        try:
            output = demo.transfer(
                content,
                motion,
                label,
                frames=int(frames),
                crop=crop,
                side_by_side=shown == "Side by side",
                paste_back=shown == "Pasted back",
            )
        except BcdBenchError as error:
            text = str(error).replace(content, Path(content).name).replace(motion, Path(motion).name)
            raise gr.Error(text, title="Not possible", duration=None) from None
        return str(output), f"Made by {label}."

    with gr.Blocks(title="bcd-bench demo", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown(f"# Motion transfer\n\n{NOTICE}")
        with gr.Row():
            with gr.Column():
                content = gr.File(label="Photo or clip: the subject", file_types=["image", "video"], elem_id="content")
                motion = gr.File(label="Driving video: the motion", file_types=["video"], elem_id="motion")
                method = gr.Dropdown(list(usable), value=next(iter(usable)), label="Method", elem_id="method")
                frames = gr.Slider(2, MOST_FRAMES, value=100, step=1, label="Frames at most")
                shown = gr.Radio(["Result", "Side by side", "Pasted back"], value="Side by side", label="Show")
                crop = gr.Checkbox(True, label="Find and crop the face, if the method needs it")
                button = gr.Button("Transfer", variant="primary", elem_id="go")
                if missing:
                    gr.Markdown(f"Without their files: {', '.join(missing)}. See `bcd-bench doctor`.")
            with gr.Column():
                result = gr.Video(label="Result", elem_id="result", autoplay=True, loop=True)
                status = gr.Markdown(elem_id="status")
        button.click(submit, [content, motion, method, frames, crop, shown], [result, status])
    return page
