"""The ablations by name: variants, the table or figure of the paper, and the claims that are tested."""

from __future__ import annotations

import difflib
import math
from typing import TYPE_CHECKING, Literal

from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.ablations.base import CONTENT, IDENTITY, MOTION, OVERALL, Ablation, Claim, Study, Variant
from bcd_bench_bcd.extensions.base import Extensions

if TYPE_CHECKING:
    from bcd_bench_bcd.landmarks.config import LandmarkPreset
    from bcd_bench_bcd.presets.base import Preset

__all__ = ["ABLATIONS", "ablation", "capacity", "without_extension"]

ROBUST = {"exact-psnr": 1.0, "target-psnr": 1.0, "action": 5.0, "content-accuracy": 5.0}
"""Differences below which a transfer counts as nearly as good: 1 dB, 5 percentage points."""
ROBUST_FRACTION = 0.1
"""The same for errors, relative to the value with all frames. The paper calls differences of up to 15 % slight."""
LOW_TARGETS = (1.0, 2.0, 3.0, 4.0, 5.0)
LARGER_CODEBOOKS = ((7.0, 256), (9.0, 1024))
"""Targets above the 6 bits of 64 entries, and the codebooks that reach them."""
LRS3_TARGETS = (80.0, 160.0, 240.0, 320.0)
"""2, 4, 6 and 8 kbit/s at 25 frames per second (Table 3)."""


def capacity(preset: Preset) -> float:
    """The largest rate of the preset's codebooks in bits per frame."""
    quantizer = preset.model.quantizer
    return quantizer.groups * math.log2(quantizer.entries)


def _rate(target: float, entries: int | None = None) -> Variant:
    overrides: dict[str, float] = {"objective.target_bits": target}
    note = ""
    if entries is not None:
        overrides["model.quantizer.entries"] = entries
        note = f"a codebook of {entries} entries"
    return Variant(f"rate-{target:g}", overrides, x=target, note=note)


def _bitrate(preset: Preset) -> Study:
    target, limit, groups = preset.objective.target_bits, capacity(preset), preset.model.quantizer.groups
    notes = [f"the preset's codebooks hold up to {limit:g} bits per frame; its target is {target:g}"]
    if groups == 1:
        targets = sorted({*(low for low in LOW_TARGETS if low < min(target, limit)), target})
        variants = [_rate(one) for one in targets]
        variants += [_rate(one, entries) for one, entries in LARGER_CODEBOOKS if one > limit]
        notes.append("targets above that use a larger codebook")
    elif target == LRS3_TARGETS[1] and limit >= LRS3_TARGETS[-1]:
        variants = [_rate(one) for one in LRS3_TARGETS]
    else:
        variants = [_rate(one) for one in sorted({target / 4, target / 2, target, round(0.94 * limit)})]
    claims = _rate_claims(variants[0].name, f"rate-{target:g}", variants[-1].name)
    return Study(tuple(variants), claims, tuple(notes))


def _rate_claims(low: str, middle: str, high: str) -> tuple[Claim, ...]:
    """The claims about three rates, of which the middle one is the preset's."""
    return (
        Claim(
            "A rate that is too low loses motion.",
            middle,
            low,
            MOTION,
            "motion error 5.26 at 2 kbit/s and 3.13 at 4 kbit/s (Table 3)",
        ),
        Claim(
            "A rate that is too low transfers worse overall.",
            middle,
            low,
            OVERALL,
            "cross error 5.68 at 2 kbit/s and 3.67 at 4 kbit/s (Table 3)",
        ),
        Claim(
            "A rate that is too high lets the driving clip's subject through.",
            middle,
            high,
            IDENTITY,
            "identity error 0.49 at 8 kbit/s and 0.41 at 4 kbit/s (Table 3)",
        ),
        Claim(
            "A rate that is too high transfers worse overall.",
            middle,
            high,
            OVERALL,
            "cross error 3.74 at 8 kbit/s and 3.67 at 4 kbit/s (Table 3)",
        ),
    )


def _landmark_rates(preset: LandmarkPreset) -> Study:
    """A quarter, a half, all, and one and a half times the groups of the code; its rate has no target but a limit."""
    code = preset.landmarks
    bits = math.log2(code.entries)
    counts = sorted({max(1, round(part * code.groups)) for part in (0.25, 0.5, 1.0, 1.5)})
    pixel_path = preset.pixel_path or "heads-landmarks"
    variants = [
        Variant(
            f"rate-{count * bits:g}",
            {"landmarks.groups": count, "pixel_path": pixel_path},
            x=count * bits,
            note=f"{count} groups of {code.entries} entries",
        )
        for count in counts
    ]
    claims = _rate_claims(variants[0].name, f"rate-{code.groups * bits:g}", variants[-1].name)
    notes = (
        "a rate is the capacity of the groups, of which the code uses as much as helps it",
        f"all variants draw with the pixel path of {pixel_path}; its layer for the code is fitted to theirs",
    )
    return Study(tuple(variants), claims, notes)


def _content_frames(counts: tuple[int, ...]) -> tuple[Variant, ...]:
    some = [Variant(f"frames-{count}", settings={"content_frames": count}, x=float(count)) for count in counts]
    return (*some, Variant("frames-all"))


ROBUST_CLAIM = Claim(
    "One content frame transfers nearly as well as all of them.",
    "frames-all",
    "frames-1",
    OVERALL,
    "cross error 3.81 with one frame and 3.67 with all (Tables 3 and A5)",
    margin=ROBUST,
)


def _single_frame(preset: Preset | LandmarkPreset) -> Study:
    del preset
    motion = Claim(
        "One content frame transfers the motion as well as all of them.",
        "frames-all",
        "frames-1",
        MOTION,
        "motion error 3.13 with one frame and with all (Tables 3 and A5)",
        margin=ROBUST,
    )
    return Study(_content_frames((1,)), (ROBUST_CLAIM, motion))


def _all_content_frames(preset: Preset | LandmarkPreset) -> Study:
    """The numbers of Table A5; on Sprites, whose clips have 8 frames, 1, 2, 4 and all."""
    sprites = preset.train.suite.startswith("sprites")
    more_content = Claim(
        "More content frames keep the identity better.",
        "frames-all",
        "frames-1",
        CONTENT,
        "identity error 0.47 with one frame and 0.41 with all (Table A5)",
    )
    more_overall = Claim(
        "More content frames transfer better overall.",
        "frames-all",
        "frames-1",
        OVERALL,
        "cross error 3.81 with one frame and 3.67 with all (Table A5)",
    )
    return Study(_content_frames((1, 2, 4) if sprites else (1, 5, 15, 20)), (ROBUST_CLAIM, more_content, more_overall))


def _bitrate_loss(preset: Preset) -> Study:
    variants = (Variant("with-bitrate-loss"), Variant("without-bitrate-loss", {"objective.rate_weight": 0.0}))
    better, worse = (variant.name for variant in variants)
    claims = (
        Claim(
            "Without the bitrate loss, transfer is worse overall.",
            better,
            worse,
            OVERALL,
            "cross error 6.21 without and 3.67 with it (Table A6)",
        ),
        Claim(
            "Without the bitrate loss, motion is transferred worse.",
            better,
            worse,
            MOTION,
            "motion error 4.81 without and 3.13 with it (Table A6)",
        ),
    )
    return Study(variants, claims, (f"with it, lambda is {preset.objective.rate_weight:g}",))


CONTRADICTS_SAME = ("symmetric_halves", "swap_cycle", "content_dropout", "content_bottleneck", "keypoint_supervision")
"""Extensions that are off in both variants of `cross-driven`: the first makes each half drive the other, the others
teach by other means that content must not carry the motion."""


def _cross_driven(preset: Preset) -> Study:
    kept = preset
    off: list[str] = []
    for name in CONTRADICTS_SAME:
        if name in kept.extensions.names:
            kept, dropped = without_extension(kept, name)
            off += dropped
    base = {f"extensions.{name}": None for name in off}
    variants = (
        Variant("cross-driven", base),
        Variant("same-half", {**base, "train.direction": "same"}),
    )
    claims = (
        Claim(
            "Without cross-driven training, motion is hardly transferred.",
            "cross-driven",
            "same-half",
            MOTION,
            "motion error 41.5 without and 3.13 with it (Table 3)",
        ),
        Claim(
            "Without cross-driven training, transfer is worse overall.",
            "cross-driven",
            "same-half",
            OVERALL,
            "cross error 40.4 without and 3.67 with it (Table 3)",
        ),
    )
    notes = ["content and motion come from the first and the second half of a clip, or both from the second"]
    if off:
        notes.append(f"extensions that contradict this or replace it are off in both variants: {', '.join(off)}")
    return Study(variants, claims, tuple(notes))


def without_extension(preset: Preset, name: str) -> tuple[Preset, tuple[str, ...]]:
    """`preset` without an extension and without those that require it; returns it with the names of all of them."""
    kept = [extension for extension in preset.extensions if extension.name != name]
    dropped = [name]
    while True:
        candidate = preset.model_copy(update={"extensions": Extensions(kept)})
        for extension in kept:
            try:
                extension.check(candidate)
            except ValueError:
                dropped.append(extension.name)
                kept = [other for other in kept if other.name != extension.name]
                break
        else:
            return candidate, tuple(dropped)


def _extensions(preset: Preset) -> Study:
    variants, claims = [Variant("all-extensions")], []
    for name in preset.extensions.names:
        _, dropped = without_extension(preset, name)
        also = f"also without {', '.join(dropped[1:])}, which requires it" if len(dropped) > 1 else ""
        variant = Variant(f"without-{name}", {f"extensions.{one}": None for one in dropped}, note=also)
        variants.append(variant)
        claims.append(Claim(f"The extension {name} improves the transfer.", "all-extensions", variant.name, OVERALL))
    return Study(tuple(variants), tuple(claims))


WITHOUT_LABELS = {"extensions.canonical_features.warp_start": 0}
"""Settings of extensions, as in `--set`, which without labels have nothing to learn from before."""


def _recipes(preset: Preset) -> Study:
    """The paper's recipe, the preset without extensions that learn from labels, and the preset."""
    names = preset.extensions.names
    labels = [extension.name for extension in preset.extensions if extension.labels]
    variants, claims = [Variant("paper", {f"extensions.{name}": None for name in names}, note="no extensions")], []
    if len(names) > len(labels):
        overrides: dict[str, int | None] = {f"extensions.{name}": None for name in labels}
        if labels:
            overrides |= {key: value for key, value in WITHOUT_LABELS.items() if key.split(".")[1] in names}
        note = f"the preset without {', '.join(labels)}" if labels else "the preset, which needs no labels"
        variants.append(Variant("self-supervised", overrides, note=note))
        claims.append(Claim("Extensions without labels improve the transfer.", "self-supervised", "paper", OVERALL))
    if labels:
        variants.append(Variant("with-labels", note=f"the preset; labels: {', '.join(labels)}"))
        claims.append(
            Claim("Extensions that learn from labels improve the transfer.", "with-labels", variants[-2].name, OVERALL)
        )
    return Study(tuple(variants), tuple(claims), ("all other settings are the preset's",))


SAMPLERS: tuple[tuple[Literal["euler", "heun", "dpmpp-2m"], int, float], ...] = (
    ("euler", 1, 1.0),
    ("euler", 2, 1.0),
    ("euler", 4, 1.0),
    ("euler", 8, 1.0),
    ("euler", 16, 1.0),
    ("heun", 2, 1.0),
    ("heun", 4, 1.0),
    ("heun", 8, 1.0),
    ("dpmpp-2m", 4, 1.0),
    ("dpmpp-2m", 8, 1.0),
    ("dpmpp-2m", 8, 1.5),
    ("dpmpp-2m", 16, 1.0),
)
"""Solver, steps and guidance; guidance other than 1 doubles the network evaluations."""


def _samplers(preset: Preset) -> Study:
    from bcd_bench_bcd.paper.config import SamplerConfig

    own = preset.sampler
    text = f"{own.name}, {own.steps} steps, guidance {own.guidance:g}"
    variants = [Variant("preset", x=float(own.nfe), note=text)]
    for solver, steps, guidance in SAMPLERS:
        settings = {"solver": solver, "steps": steps, "guidance": guidance}
        evaluations = SamplerConfig(name=solver, steps=steps, guidance=guidance).nfe
        guided = "" if guidance == 1.0 else f"-guidance-{guidance:g}"
        variants.append(Variant(f"{solver}-{steps}{guided}", settings=settings, x=float(evaluations)))
    few, many = "euler-1", "euler-16"
    claims = (
        Claim("Sixteen Euler steps transfer better than one.", many, few, OVERALL),
        Claim("Sixteen Euler steps transfer better than the preset's sampler.", many, "preset", OVERALL),
        Claim("Guidance 1.5 transfers better than none.", "dpmpp-2m-8-guidance-1.5", "dpmpp-2m-8", OVERALL),
    )
    return Study(tuple(variants), claims)


ABLATIONS: dict[str, Ablation] = {
    one.name: one
    for one in (
        Ablation(
            "bitrate",
            "the target rate of the motion code, trained from scratch at each rate",
            "Table 3, Figure A7",
            trains=True,
            study=_bitrate,
            varies=("objective.target_bits",),
            landmark_study=_landmark_rates,
            landmark_varies=("landmarks.groups",),
            axis="target, bits per frame",
        ),
        Ablation(
            "single-frame",
            "content from one frame instead of all",
            "Table 3, Table A5",
            trains=False,
            study=_single_frame,
            landmark_study=_single_frame,
        ),
        Ablation(
            "content-frames",
            "the number of content frames",
            "Table A5",
            trains=False,
            study=_all_content_frames,
            landmark_study=_all_content_frames,
        ),
        Ablation(
            "bitrate-loss",
            "training without the bitrate loss",
            "Table A6",
            trains=True,
            study=_bitrate_loss,
            varies=("objective.rate_weight",),
        ),
        Ablation(
            "cross-driven",
            "content and motion from the same half of a training clip",
            "Table 3",
            trains=True,
            study=_cross_driven,
            varies=("train.direction",),
        ),
        Ablation(
            "extensions",
            "each extension of the preset off, one at a time",
            "",
            trains=True,
            study=_extensions,
        ),
        Ablation(
            "recipes",
            "the paper's recipe, with extensions, and with extensions that learn from labels",
            "",
            trains=True,
            study=_recipes,
        ),
        Ablation(
            "sampler",
            "solver, steps and guidance against quality and time",
            "",
            trains=False,
            study=_samplers,
            axis="network evaluations per clip",
            timed=True,
        ),
    )
}
"""All ablations by name."""


def ablation(name: str) -> Ablation:
    """The ablation `name`. Raises `UsageError` with the nearest names if there is none."""
    if name not in ABLATIONS:
        near = difflib.get_close_matches(name, ABLATIONS, n=2)
        raise UsageError(
            f"unknown ablation {name!r}; nearest: {', '.join(near) or 'none'}",
            hint=f"choose one of: {', '.join(ABLATIONS)}",
        )
    return ABLATIONS[name]
