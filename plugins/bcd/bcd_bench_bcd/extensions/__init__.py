"""Techniques that our recipes add to the paper's, one per file; listed in `EXTENSIONS`.

`model`, `decoder`, `quantizer` and `loss` are the paper's modules with hooks for them.
"""

from __future__ import annotations

from bcd_bench_bcd.extensions.assignment_entropy import AssignmentEntropy
from bcd_bench_bcd.extensions.base import Extension, Extensions, Schedule, declare
from bcd_bench_bcd.extensions.canonical_features import CanonicalFeatures
from bcd_bench_bcd.extensions.color_jitter import ColorJitter
from bcd_bench_bcd.extensions.content_bottleneck import ContentBottleneck
from bcd_bench_bcd.extensions.content_channels import ContentChannels
from bcd_bench_bcd.extensions.content_dropout import ContentDropout
from bcd_bench_bcd.extensions.content_frame_dropout import ContentFrameDropout
from bcd_bench_bcd.extensions.conv_stem import ConvStem
from bcd_bench_bcd.extensions.dead_code_restart import DeadCodeRestart
from bcd_bench_bcd.extensions.expression_gain import ExpressionGain
from bcd_bench_bcd.extensions.field_smoothing import FieldSmoothing
from bcd_bench_bcd.extensions.frame_subset import FrameSubset
from bcd_bench_bcd.extensions.fusion_damping import FusionDamping
from bcd_bench_bcd.extensions.gradient_loss import GradientLoss
from bcd_bench_bcd.extensions.horizontal_flip import HorizontalFlip
from bcd_bench_bcd.extensions.keypoint_supervision import KeypointSupervision
from bcd_bench_bcd.extensions.landmark_motion import LandmarkMotion
from bcd_bench_bcd.extensions.latent_gradient import LatentGradient
from bcd_bench_bcd.extensions.loss_weight_clamp import LossWeightClamp
from bcd_bench_bcd.extensions.motion_smoothing import MotionSmoothing
from bcd_bench_bcd.extensions.muon import Muon
from bcd_bench_bcd.extensions.patch_skipping import PatchSkipping
from bcd_bench_bcd.extensions.pixel_path import PixelPath
from bcd_bench_bcd.extensions.pose_correction import PoseCorrection
from bcd_bench_bcd.extensions.robust_loss import RobustLoss
from bcd_bench_bcd.extensions.same_identity_pairs import SameIdentityPairs
from bcd_bench_bcd.extensions.spatial_motion import SpatialMotion
from bcd_bench_bcd.extensions.standardized_latents import StandardizedLatents
from bcd_bench_bcd.extensions.steady_sources import SteadySources
from bcd_bench_bcd.extensions.swap_cycle import SwapCycle
from bcd_bench_bcd.extensions.symmetric_halves import SymmetricHalves
from bcd_bench_bcd.extensions.vq_start import VQStart
from bcd_bench_bcd.extensions.x_prediction import XPrediction

__all__ = ["EXTENSIONS", "Extension", "Extensions", "Schedule"]

EXTENSIONS: dict[str, type[Extension]] = {
    extension.name: extension
    for extension in (
        # data
        SameIdentityPairs,
        FrameSubset,
        HorizontalFlip,
        SymmetricHalves,
        # architecture
        ConvStem,
        ContentChannels,
        ContentBottleneck,
        StandardizedLatents,
        LatentGradient,
        SpatialMotion,
        CanonicalFeatures,
        LandmarkMotion,
        PoseCorrection,
        ExpressionGain,
        PixelPath,
        FieldSmoothing,
        FusionDamping,
        MotionSmoothing,
        SteadySources,
        # the step
        ColorJitter,
        ContentFrameDropout,
        DeadCodeRestart,
        VQStart,
        XPrediction,
        LossWeightClamp,
        ContentDropout,
        RobustLoss,
        GradientLoss,
        KeypointSupervision,
        AssignmentEntropy,
        SwapCycle,
        # the optimisation
        PatchSkipping,
        Muon,
    )
}
"""Extensions by name, in the order in which their hooks run."""

declare(EXTENSIONS)
