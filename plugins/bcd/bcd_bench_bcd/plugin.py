"""Specs of this plugin; heavy code is imported only where it is used."""

from __future__ import annotations

from bcd_bench import AssetSpec, CommandSpec, MethodSpec, MetricSpec, TrainableSpec, hookimpl
from bcd_bench_bcd import __version__
from bcd_bench_bcd.autoregressive.pretrained import SHIPPED_MOTION
from bcd_bench_bcd.inference.pretrained import SHIPPED

__all__ = ["bcd_bench_assets", "bcd_bench_commands", "bcd_bench_methods", "bcd_bench_metrics", "bcd_bench_trainables"]


_SETTINGS = {
    "sampler": "default",
    "solver": None,
    "steps": None,
    "guidance": None,
    "content_frames": None,
    "content_bits": None,
    "dtype": "float32",
}
_GENERATORS = (
    ("bcd-generate", "BCDGenerate", False, "Continues a prompt: GPT-2 generates motion codes, BCD decodes them"),
    ("bcd-markov", "MarkovMotion", True, "Continues a prompt with a Markov chain over the motion codes"),
    ("bcd-training-motion", "TrainingMotion", True, "Continues a prompt with the most similar training motion"),
)
"""Name, class, whether it is a reference method, and summary of the methods for generation suites."""


@hookimpl
def bcd_bench_methods() -> list[MethodSpec]:
    """BCD with the shipped weights."""
    return [
        MethodSpec(
            name="bcd",
            version="0.1.1",  # of its outputs, not of the package: clips of other sizes are resized exactly
            summary="Bitrate-Controlled Diffusion: content tokens, vector-quantised motion, diffusion decoder",
            factory="bcd_bench_bcd.inference.method:BCDMethod",
            licence="Apache-2.0",
            paper="Bitrate-Controlled Diffusion for Disentangling Motion and Content in Video",
            config=_SETTINGS,
            weights=SHIPPED,
            describe_weights="bcd_bench_bcd.inference.recipe:describe_weights",
            batch_size=16,
            metrics=("motion-bitrate",),
        ),
        MethodSpec(
            name="bcd-bitstream",
            version="0.1.0",
            summary="BCD through its bitstream: outputs are decoded from files whose size is reported",
            factory="bcd_bench_bcd.bitstream.method:CodedBCD",
            licence="Apache-2.0",
            config={**_SETTINGS, "model": "context", "content_crf": None},
            weights=SHIPPED,
            describe_weights="bcd_bench_bcd.inference.recipe:describe_weights",
        ),
        *(
            MethodSpec(
                name=name,
                version="0.1.0",
                summary=summary,
                factory=f"bcd_bench_bcd.autoregressive.methods:{factory}",
                licence="Apache-2.0",
                config={"bcd": None, **({} if reference else {"temperature": 0.0, "top_k": None, "top_p": None})},
                weights=SHIPPED_MOTION,
                batch_size=16,
                metrics=("motion-generation",),
                reference=reference,
            )
            for name, factory, reference, summary in _GENERATORS
        ),
        MethodSpec(
            name="repeat-last",
            version="0.1.0",
            summary="The prompt, then its last frame until the end",
            factory="bcd_bench_bcd.autoregressive.methods:RepeatLast",
            reference=True,
        ),
    ]


@hookimpl
def bcd_bench_metrics() -> list[MetricSpec]:
    """The bitrate of the motion code."""
    return [
        MetricSpec(
            name="motion-bitrate",
            version="1",
            summary="Bits per frame of the motion codes, for methods that report them",
            factory="bcd_bench_bcd.metrics.motion_bitrate:MotionBitrate",
            licence="Apache-2.0",
        ),
        MetricSpec(
            name="motion-generation",
            version="1",
            summary="Likelihood, diversity and novelty of generated motion codes, for methods that report them",
            factory="bcd_bench_bcd.metrics.motion_generation:MotionGeneration",
            licence="Apache-2.0",
        ),
    ]


@hookimpl
def bcd_bench_assets() -> list[AssetSpec]:
    """The autoencoders whose latents presets use."""
    return [
        AssetSpec(
            name="sd2-vae",
            filename="sd2-vae",
            sha256="",
            size=0,
            licence="CreativeML Open RAIL++-M for SD 2.0's; else that of your autoencoder",
            how_to="the folder `vae` of Stable Diffusion 2.0 in diffusers format, or a compatible one",
            directory=True,
            variable="BCD_BENCH_VAE",
        ),
        *(
            AssetSpec(
                name=f"taef2-{half}",
                filename=f"taef2_{half}.pth",
                sha256=sha256,
                size=size,
                licence="MIT",
                how_to="the tiny autoencoder for FLUX.2's latents, from github.com/madebyollin/taesd",
            )
            for half, sha256, size in (
                ("encoder", "10a4e1021e89d7551eaf161352da8dbd0b1aa83872ae28b150c1df1ce2f147b6", 2704692),
                ("decoder", "0a44a31e1ae59eb9dbf9359d24942fd3ef5928162c1800d97a28c61d51be0ab5", 2704756),
            )
        ),
    ]


@hookimpl
def bcd_bench_commands() -> list[CommandSpec]:
    """`bcd-bench ablate`, `encode`, `decode`, `generate`, `rates`, `prepare` and `probe`."""
    return [
        CommandSpec(
            name="ablate",
            summary="Train, score and compare the variants of an ablation.",
            factory="bcd_bench_bcd.ablations.commands:command",
        ),
        CommandSpec(
            name="encode",
            summary="Encode content and motion into a bitstream.",
            factory="bcd_bench_bcd.bitstream.commands:encode",
        ),
        CommandSpec(
            name="decode",
            summary="Decode a bitstream into a video.",
            factory="bcd_bench_bcd.bitstream.commands:decode",
        ),
        CommandSpec(
            name="rates",
            summary="Bits per frame of a suite's motion codes.",
            factory="bcd_bench_bcd.bitstream.rates:command",
        ),
        CommandSpec(
            name="generate",
            summary="Continue a clip or a photo with generated motion.",
            factory="bcd_bench_bcd.autoregressive.commands:generate",
        ),
        CommandSpec(
            name="prepare",
            summary="Encode the training videos of BCD into latents, once.",
            factory="bcd_bench_bcd.latents.prepare:command",
        ),
        CommandSpec(
            name="probe",
            summary="Linear probes of BCD's content and motion codes.",
            factory="bcd_bench_bcd.metrics.probe:command",
        ),
    ]


@hookimpl
def bcd_bench_trainables() -> list[TrainableSpec]:
    """`bcd-bench train bcd`, `bcd-motion`, `bcd-landmarks` and `bcd-pixels`."""
    return [
        TrainableSpec(
            name="bcd",
            version=__version__,
            summary="BCD trained from scratch on the training split of a suite",
            factory="bcd_bench_bcd.training.trainer:train",
            presets={
                "sprites-procedural-small": "the small model on the embedded procedural Sprites; no files needed",
                "sprites-small": "the small model on LPC Sprites (asset sprites-art); hours on two CPU cores",
                "heads-small": "a small model of rendered talking heads, 128x128; an hour on two CPU cores",
                "heads-tiny": "a tiny model of rendered talking heads, 64x64, for ablations; minutes",
                "heads-paper-small": "the paper's recipe without extensions, small, on rendered heads; hours",
                "sprites-procedural-tiny": "a tiny model on the embedded procedural Sprites, for ablations; minutes",
                "sprites-tiny": "the same tiny model on LPC Sprites",
                "sprites-procedural-paper-small": "the paper's recipe without extensions, small, on the embedded suite",
                "sprites-paper-small": "the paper's recipe without extensions, small, LPC Sprites; one hour, two cores",
                "sprites": "Table A8 of the paper, on LPC Sprites; for GPUs",
                "lrs3": "Table A7 of the paper, on latents of LRS3 (see prepare); for GPUs",
                "lrs3-tiny": "a small model on latents of the tiny autoencoder: lrs3's pipeline in minutes on a CPU",
            },
            default_preset="sprites-procedural-small",
            settings="bcd_bench_bcd.presets.registry:settings_of",
        ),
        TrainableSpec(
            name="bcd-motion",
            version=__version__,
            summary="GPT-2 over the motion codes of a trained BCD, for generation and coding",
            factory="bcd_bench_bcd.autoregressive.train:train",
            presets={
                "sprites-procedural-small": "for the codes of sprites-procedural-small; no files needed; minutes",
                "sprites-small": "for the codes of sprites-small (asset sprites-art); minutes on a CPU",
                "heads-small": "for the codes of heads-small on rendered heads, which are rendered first",
                "heads-landmarks": "for the codes of heads-landmarks on the same heads",
                "table-a9": "Table A9 of the paper, for codes of the preset lrs3; for GPUs",
            },
            default_preset="sprites-procedural-small",
            settings="bcd_bench_bcd.autoregressive.presets:settings_of",
        ),
        TrainableSpec(
            name="bcd-landmarks",
            version=__version__,
            summary="Motion codes of a trained BCD read from dense landmarks: faces of real people are followed",
            factory="bcd_bench_bcd.landmarks.train:train",
            presets={"heads-landmarks": "for heads-small, on points of rendered heads; half an hour of a core"},
            default_preset="heads-landmarks",
            settings="bcd_bench_bcd.landmarks.presets:settings_of",
        ),
        TrainableSpec(
            name="bcd-pixels",
            version=__version__,
            summary="The pixel path of a trained BCD: sharp faces from the content's own pixels",
            factory="bcd_bench_bcd.pixels.train:train",
            presets={"heads-pixels": "for heads-small, on rendered heads, which are rendered first; an hour of a core"},
            default_preset="heads-pixels",
            settings="bcd_bench_bcd.pixels.presets:settings_of",
        ),
    ]
