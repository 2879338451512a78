"""Specs of this plugin; heavy code is imported only where it is used."""

from __future__ import annotations

from bcd_bench import AssetSpec, MetricSpec, ReportedRow, SuiteSpec, TrainableSpec, hookimpl
from bcd_bench_sprites.art import ART, ART_LICENCE

_PERFECT = {"action": 100.0, "skin": 100.0, "pants": 100.0, "top": 100.0, "hair": 100.0}
_NOTE = (
    "another protocol: judged by the C-DSVAE classifier, whose weights are not public; C-DSVAE's own code scores prior "
    "samples of one factor over 2,560 of the 2,664 test clips, ours are swaps over all of them"
)
_SOURCE = "Bitrate-Controlled Diffusion paper, Table A4"


def _generation(prompt: int, *, procedural: bool = False) -> SuiteSpec:
    base = "sprites-procedural" if procedural else "sprites"
    first = "first frame" if prompt == 1 else f"first {prompt} frames"
    return SuiteSpec(
        name=f"{base}-generate" + ("" if prompt == 1 else f"-prompt{prompt}"),
        version="1",
        summary=f"Continue the {first} of each of the 2,664 test clips of {base}.",
        factory=f"bcd_bench_sprites.generation_suite:{'procedural' if procedural else 'lpc'}_{prompt}",
        assets=() if procedural else (ART.name,),
        licence="Apache-2.0" if procedural else ART_LICENCE,
    )


@hookimpl
def bcd_bench_suites() -> list[SuiteSpec]:
    return [
        SuiteSpec(
            name="sprites",
            version="1",
            summary="LPC Sprites: motion swaps over all 2,664 test clips, with ground-truth targets.",
            factory="bcd_bench_sprites.suite:lpc_suite",
            training="bcd_bench_sprites.training:sprites",
            assets=(ART.name,),
            licence=ART_LICENCE,
            reported=(
                ReportedRow("C-DSVAE", _SOURCE, _PERFECT, _NOTE),
                ReportedRow("BCD", _SOURCE, _PERFECT, _NOTE),
            ),
        ),
        SuiteSpec(
            name="sprites-procedural",
            version="1",
            summary="Procedural pixel characters with the factors of LPC Sprites; requires no files.",
            factory="bcd_bench_sprites.suite:procedural_suite",
            training="bcd_bench_sprites.training:procedural",
            licence="Apache-2.0",
        ),
        SuiteSpec(
            name="sprites-self",
            version="1",
            summary="LPC Sprites: every test clip drives itself, for self-reenactment and codecs.",
            factory="bcd_bench_sprites.suite:lpc_self_suite",
            assets=(ART.name,),
            licence=ART_LICENCE,
        ),
        SuiteSpec(
            name="sprites-procedural-self",
            version="1",
            summary="Procedural characters: every test clip drives itself, for self-reenactment and codecs.",
            factory="bcd_bench_sprites.suite:procedural_self_suite",
            licence="Apache-2.0",
        ),
        *(_generation(prompt) for prompt in (1, 3)),
        *(_generation(prompt, procedural=True) for prompt in (1, 3)),
    ]


@hookimpl
def bcd_bench_metrics() -> list[MetricSpec]:
    return [
        MetricSpec(
            name="sprites-judge",
            version="1",
            summary="Classifier accuracies for motion and attributes, leaks, entropies, and distance to the target.",
            factory="bcd_bench_sprites.metric:SpritesJudge",
            suites=("sprites", "sprites-procedural"),
            needs_target=True,
            licence="Apache-2.0",
        ),
        MetricSpec(
            name="sprites-generation",
            version="1",
            summary="Whether generated clips are true motions of the prompt's character, and their distribution.",
            factory="bcd_bench_sprites.generation_metric:SpritesGeneration",
            suites=(
                "sprites-generate",
                "sprites-generate-prompt3",
                "sprites-procedural-generate",
                "sprites-procedural-generate-prompt3",
            ),
            licence="Apache-2.0",
        ),
    ]


@hookimpl
def bcd_bench_assets() -> list[AssetSpec]:
    return [ART]


@hookimpl
def bcd_bench_trainables() -> list[TrainableSpec]:
    return [
        TrainableSpec(
            name="sprites-judge",
            version="1",
            summary="The classifier of the metric sprites-judge.",
            factory="bcd_bench_sprites.train_classifier:train_judge",
            presets={
                "sprites-procedural": "for the suite sprites-procedural: 1,200 steps, a few minutes on one core",
                "sprites": "for the suite sprites (requires sprites-art): 1,200 steps, a few minutes on one core",
            },
            default_preset="sprites-procedural",
        )
    ]
