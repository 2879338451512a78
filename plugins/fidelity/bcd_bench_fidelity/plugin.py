"""Specs of this plugin; torch, SciPy and the networks are imported only where they are used."""

from __future__ import annotations

from bcd_bench import AssetSpec, ExtractorSpec, MetricSpec, hookimpl
from bcd_bench_fidelity.backbones import EFFICIENTNET_LITE0, I3D_KINETICS, I3D_WEIGHTS, INCEPTION, INCEPTION_WEIGHTS
from bcd_bench_fidelity.perceptual_weights import ALEXNET_WEIGHTS, ST_LPIPS_WEIGHTS


@hookimpl
def bcd_bench_metrics() -> list[MetricSpec]:
    return [
        MetricSpec(
            name="fid",
            version="1",
            summary="Frechet Inception distance of output frames to real frames.",
            factory="bcd_bench_fidelity.frechet_metrics:FID",
            level="set",
            extractors=(INCEPTION.extractor,),
            measures=("appearance",),
            licence="Apache-2.0",
        ),
        MetricSpec(
            name="kid",
            version="1",
            summary="Kernel Inception distance of output frames to real frames, unbiased.",
            factory="bcd_bench_fidelity.kid:KID",
            level="set",
            extractors=(INCEPTION.extractor,),
            measures=("appearance",),
            licence="Apache-2.0",
        ),
        MetricSpec(
            name="fd-efficientnet-lite0",
            version="1",
            summary="Frechet distance on EfficientNet-Lite0, whose weights are installed by pip; not FID.",
            factory="bcd_bench_fidelity.frechet_metrics:FDEfficientNetLite0",
            level="set",
            extractors=(EFFICIENTNET_LITE0.extractor,),
            measures=("appearance",),
            licence="Apache-2.0",
        ),
        MetricSpec(
            name="fvd",
            version="1",
            summary="Frechet video distance of outputs to real clips, on I3D.",
            factory="bcd_bench_fidelity.frechet_metrics:FVD",
            level="set",
            extractors=(I3D_KINETICS.extractor,),
            measures=("appearance", "time", "motion"),
            licence="Apache-2.0",
        ),
        MetricSpec(
            name="target-psnr",
            version="1",
            summary="PSNR against the ground-truth target.",
            factory="bcd_bench_fidelity.full_reference:TargetPSNR",
            needs_target=True,
            licence="Apache-2.0",
        ),
        MetricSpec(
            name="target-ssim",
            version="1",
            summary="Structural similarity to the ground-truth target.",
            factory="bcd_bench_fidelity.full_reference:TargetSSIM",
            needs_target=True,
            licence="Apache-2.0",
        ),
        MetricSpec(
            name="lpips",
            version="1",
            summary="LPIPS (AlexNet, v0.1) against the ground-truth target.",
            factory="bcd_bench_fidelity.perceptual:LPIPS",
            assets=(ALEXNET_WEIGHTS.name,),
            needs_target=True,
            measures=("identity", "motion", "appearance", "time"),
            licence="Apache-2.0",
        ),
        MetricSpec(
            name="st-lpips",
            version="1",
            summary="Shift-tolerant LPIPS (AlexNet) against the ground-truth target; not LPIPS.",
            factory="bcd_bench_fidelity.perceptual:STLPIPS",
            assets=(ST_LPIPS_WEIGHTS.name,),
            needs_target=True,
            measures=("identity", "motion", "appearance", "time"),
            licence="Apache-2.0",
        ),
        MetricSpec(
            name="flicker",
            version="1",
            summary="Differences of consecutive frames, and their deviation from those of the driving clip.",
            factory="bcd_bench_fidelity.flicker:Flicker",
            measures=("time",),
            licence="Apache-2.0",
        ),
    ]


@hookimpl
def bcd_bench_extractors() -> list[ExtractorSpec]:
    return [
        ExtractorSpec(
            name=INCEPTION.extractor,
            version="1",
            summary="2,048 features per frame from the Inception-v3 of pytorch-fid.",
            factory="bcd_bench_fidelity.extractors:InceptionFeatures",
            assets=(INCEPTION_WEIGHTS.name,),
        ),
        ExtractorSpec(
            name=EFFICIENTNET_LITE0.extractor,
            version="1",
            summary="1,280 features per frame from EfficientNet-Lite0 (ImageNet).",
            factory="bcd_bench_fidelity.extractors:EfficientNetLite0Features",
        ),
        ExtractorSpec(
            name=I3D_KINETICS.extractor,
            version="1",
            summary="400 logits per window of 16 frames from I3D (Kinetics-400).",
            factory="bcd_bench_fidelity.video_features:I3DFeatures",
            assets=(I3D_WEIGHTS.name,),
        ),
    ]


@hookimpl
def bcd_bench_assets() -> list[AssetSpec]:
    return [INCEPTION_WEIGHTS, I3D_WEIGHTS, ALEXNET_WEIGHTS, ST_LPIPS_WEIGHTS]
