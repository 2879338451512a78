"""A trained BCD on clips of any length: encode content, encode motion, sample."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bcd_bench_bcd.extensions.model import ExtendedBCD, landmarks_of
from bcd_bench_bcd.extensions.pose_correction import PoseCorrection
from bcd_bench_bcd.inference.landmarks import landmark_reader
from bcd_bench_bcd.inference.pose_correction import pose_corrector
from bcd_bench_bcd.inference.sliding_window import overlap_add, strided_subsets
from bcd_bench_bcd.latents.frame_codec import to_frames
from bcd_bench_bcd.paper import edm
from bcd_bench_bcd.paper.config import SamplerConfig
from bcd_bench_bcd.paper.model import BCD
from bcd_bench_bcd.paper.quantizer import Quantized

__all__ = ["Pipeline"]


class Pipeline:
    """A model in eval mode. With a `window`, longer clips are processed in overlapping windows of this many frames.

    Clips are values as returned by `BCD.values`, [B, T, C, h, w].
    """

    def __init__(self, model: BCD, window: int | None = None) -> None:
        self.model, self.window = model, window

    def encode_content(self, values: Tensor) -> Tensor:
        """Content [B, K, C_c], float32: the mean over subsets of the frames, weighted by their number of frames."""
        model, frames = self.model, values.shape[1]
        total = values.new_zeros(())
        for subset in strided_subsets(frames, self.window):
            subset_values = values[:, subset]
            content = (
                model.content_mean(subset_values)
                if isinstance(model, ExtendedBCD)
                else model.encode_content(subset_values)
            )
            total = total + content * (subset_values.shape[1] / frames)
        return model.rounded(total) if isinstance(model, ExtendedBCD) else total

    def encode_motion(self, values: Tensor) -> Quantized:
        """Quantised motion; its latents are averaged over overlapping windows."""
        quantized: Quantized = self.model.quantizer(self.motion_latents(values))
        return quantized

    def motion_latents(self, values: Tensor) -> Tensor:
        """Motion latents [B, T, C_m] before quantisation, averaged over overlapping windows; with `landmark_motion`,
        those of the landmarks of whole clips."""
        network = landmarks_of(self.model)
        if network is not None:
            return network.encode(self.landmarks(values), self.turns(values))[0]

        def latents(here: slice) -> Tensor:
            return self.model.latents_of_motion(values[:, here])

        return overlap_add(values.shape[1], self.window, latents)

    def landmarks(self, values: Tensor) -> Tensor:
        """Landmarks [B, T, N, 2] of clips, x and y in -1..1, for weights with `landmark_motion`.

        Raises `ValueError` for other weights, `NoFaceError` for a clip without a face.
        """
        network = landmarks_of(self.model)
        if network is None:
            raise ValueError("the weights read motion from pixels")
        reader = landmark_reader(network.settings.network)
        clips = to_frames(values).cpu().numpy()
        return torch.from_numpy(np.stack([reader.read(clip) for clip in clips])).to(values.device)

    def turns(self, values: Tensor) -> Tensor | None:
        """Rotations [B, 3, 3] that correct the head poses of clips; None for weights without `pose_correction`."""
        network, model = landmarks_of(self.model), self.model
        settings = model.extensions.get(PoseCorrection) if isinstance(model, ExtendedBCD) else None
        if network is None or settings is None:
            return None
        reader, corrector = landmark_reader(network.settings.network), pose_corrector()
        clips = to_frames(values).cpu().numpy()
        return torch.stack([corrector.turn(clip, reader.features(clip), settings) for clip in clips]).to(values.device)

    def motion_of(self, codes: Tensor) -> Tensor:
        """The quantised motion float32 [B, T, C_m] that codes int [B, T, N] stand for, on the model's device."""
        codebook = self.model.quantizer.codebook.detach()
        groups = torch.arange(codes.shape[-1], device=codebook.device)
        return codebook[groups, codes.to(codebook.device).long()].flatten(2)

    @torch.no_grad()
    def sample(self, content: Tensor, motion: Tensor, sampler: SamplerConfig, noise: Tensor) -> Tensor:
        """As `BCD.sample`. Windows are averaged in every estimate of the clean clip: the solver sees no borders."""
        model = self.model

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            return overlap_add(
                x.shape[1],
                self.window,
                lambda here: model.guided(x[:, here], sigma, content, motion[:, here], sampler.guidance),
            )

        return model.decoder.unpatchify(edm.sample(denoise, noise, sampler))
