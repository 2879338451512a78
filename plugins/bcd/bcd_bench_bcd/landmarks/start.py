"""Where the training of motion in landmarks starts: principal components, and later a transform code.

A network that begins as the best linear one learns in minutes what takes hours from random weights: the pose passes
straight through, and the shapes of the decoder are principal components. Before the quantiser is switched on, the
latents are rotated so that their components affect the points independently (in pixels), sorted by that effect, and
distributed over the groups, so that every group has about as much to say (transform coding, as in image codecs).
"""

from __future__ import annotations

import torch
from torch import Tensor

from bcd_bench_bcd.extensions.landmark_motion import COMPONENTS, EXPRESSIONS, SCALE, LandmarkNetwork

__all__ = ["FREE", "group_order", "principal_components", "start_network", "transform_code"]

FREE = 64
"""Channels of the latents before the quantiser is switched on."""
POSE = 9
PIXELS = 64.0
"""Latents are about in pixels of a frame of 128."""
LEAST_SHARE = 0.005
"""Share of head, neck or shoulders in a point, at least, so that training can change it."""
FRONTAL = 1.2
"""Largest entry of the turn, as the encoder sees it, of the frames in which shapes are compared."""


def principal_components(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Unit directions [count, C] of the largest second moments of `rows` [N, C], and their roots [count]."""
    values, vectors = torch.linalg.eigh(rows.mT @ rows / len(rows))
    order = values.argsort(descending=True)[:count]
    return vectors[:, order].mT, values[order].clamp_min(1e-12).sqrt()


@torch.no_grad()
def start_network(network: LandmarkNetwork, mean: Tensor, rest: Tensor, skinning: Tensor, landmarks: Tensor) -> None:
    """Initialise `network` for a head of points `mean` [P, 3] in mm at `rest` [3], which turn with the head and with
    the neck by the shares `skinning` [P, 2], from the landmarks [N, T, L, 2] of N clips."""
    encoder, decoder, settings = network.encoder, network.decoder, network.settings
    decoder.mean.copy_(mean / SCALE)
    decoder.rest.copy_(rest / SCALE)
    shares = torch.cat([skinning, 1 - skinning.sum(1, keepdim=True)], 1)
    decoder.follows.copy_(shares.clamp_min(LEAST_SHARE).log())
    pose, left = (part.unflatten(0, landmarks.shape[:2]) for part in network.pose_and_rest(landmarks.flatten(0, 1)))
    directions, spread = principal_components(left.flatten(0, 1), min(COMPONENTS, left.shape[-1]))
    network.components[: len(directions)] = directions / spread[:, None]
    to_left = torch.zeros_like(network.components)
    to_left[: len(directions)] = directions * spread[:, None]  # the inverse of `components`
    to_shape = rest[2] / SCALE / settings.focal  # from the picture to the decoder's space, at rest

    def shapes(found: Tensor, size: Tensor, into: Tensor) -> None:
        flat = into.unflatten(-1, (-1, 3))
        flat.zero_()
        flat[: len(found), : settings.landmarks, :2] = (found * size[:, None] * to_shape).unflatten(-1, (-1, 2))

    for layer in (encoder.motion[2], encoder.subject[2], decoder.pose[2], decoder.expression_out):
        layer.weight.mul_(0.1)
        layer.bias.zero_()
    for layer in (encoder.direct, encoder.subject_direct, decoder.pose_direct, decoder.expression_direct):
        layer.weight.zero_()
    frontal = pose[..., :6].abs().amax(-1) < FRONTAL
    count = min(EXPRESSIONS, encoder.direct.out_features - POSE)
    found, size = principal_components((left - left.mean(1, keepdim=True))[frontal], min(count, left.shape[-1]))
    encoder.direct.bias.zero_()
    encoder.direct.weight[:POSE, :POSE] = torch.eye(POSE)
    encoder.direct.weight[POSE : POSE + len(found), POSE:] = found / size[:, None] @ to_left.mT
    decoder.expression_direct.weight[: len(found), POSE : POSE + len(found)] = torch.eye(len(found))
    decoder.pose_direct.weight[:, :POSE] = torch.diag(1 / network.pose_scale())
    shapes(found, size, decoder.expression_shapes)
    people = left.mean(1)
    found, size = principal_components(people - people.mean(0), min(settings.subject, left.shape[-1]))
    encoder.subject_direct.weight[: len(found), POSE:] = found / size[:, None] @ to_left.mT
    encoder.subject_direct.bias.zero_()
    encoder.subject_direct.bias[: len(found)] = -(found @ people.mean(0)) / size
    shapes(found, size, decoder.subject_shapes)


def group_order(groups: int, dim: int) -> list[int]:
    """Channels, sorted by importance, in the order of the groups: rows of `groups` channels, alternately reversed."""
    rows = [list(range(row * groups, (row + 1) * groups)) for row in range(dim)]
    rows = [row[::-1] if number % 2 else row for number, row in enumerate(rows)]
    return [rows[channel][group] for group in range(groups) for channel in range(dim)]


@torch.no_grad()
def transform_code(
    free: LandmarkNetwork, network: LandmarkNetwork, latents: Tensor, subjects: Tensor, weights: Tensor
) -> None:
    """Initialise `network`, of fewer latents, as `free`, so that as little as possible is lost for the points.

    `latents` [N, FREE] and `subjects` [N, C] are examples, `weights` [P] those of the points.
    """
    mean = latents.mean(0)
    covariance = (latents - mean).mT @ (latents - mean) / len(latents)
    roots = (weights / weights.sum()).sqrt()[:, None]
    some = slice(0, len(latents), max(1, len(latents) // 384))
    start = free.decode(latents[some], subjects[some]).points
    slopes = []
    for channel in range(latents.shape[1]):
        step = 0.2 * covariance[channel, channel].sqrt().clamp_min(1e-4)
        moved = latents[some] + step * torch.eye(latents.shape[1])[channel]
        slopes.append(((free.decode(moved, subjects[some]).points - start) * roots / step).flatten(1))
    slope = torch.stack(slopes, 1)
    metric = torch.einsum("nkp,nlp->kl", slope, slope) / len(slope) + 1e-6 * torch.eye(latents.shape[1])
    values, vectors = torch.linalg.eigh(metric)
    root, inverse = (vectors * values.clamp_min(1e-12) ** power @ vectors.mT for power in (0.5, -0.5))
    values, vectors = torch.linalg.eigh(root @ covariance @ root)
    settings = network.settings
    order = values.argsort(descending=True)[: settings.groups * settings.dim]
    order = order[group_order(settings.groups, settings.dim)]
    into = vectors[:, order].mT @ root * PIXELS
    back = inverse @ vectors[:, order] / PIXELS
    _take_over(free, network, into, back, mean)


def _take_over(free: LandmarkNetwork, network: LandmarkNetwork, into: Tensor, back: Tensor, mean: Tensor) -> None:
    """Weights of `network` that make its latents `into` (z - mean) of the latents z of `free`, which are `back` of
    them."""
    state, old = network.state_dict(), free.state_dict()
    for name, value in old.items():
        if name.startswith(("encoder.motion.2.", "encoder.direct.")):
            value = into @ (value - mean if name == "encoder.motion.2.bias" else value)
        elif name.startswith("decoder."):
            value = _of_new_latents(name.removeprefix("decoder."), value, old, back, mean)
        elif name.startswith(("spread", "translation")):
            continue
        state[name] = value
    network.load_state_dict(state)


def _of_new_latents(name: str, value: Tensor, old: dict[str, Tensor], back: Tensor, mean: Tensor) -> Tensor:
    """A parameter of the decoder for other latents: those layers that read latents read `back` of the new ones."""
    if name in ("expression.0.weight", "pose.0.weight", "expression_direct.weight", "pose_direct.weight"):
        return value @ back
    if name == "detail.0.weight":
        return torch.cat([value[:, :FREE] @ back, value[:, FREE:]], 1)
    reads = {
        "expression.0.bias": "expression.0.weight", "pose.0.bias": "pose.0.weight", "detail.0.bias": "detail.0.weight",
        "expression_out.bias": "expression_direct.weight", "pose.2.bias": "pose_direct.weight",
    }  # fmt: skip
    return value + old[f"decoder.{reads[name]}"][:, :FREE] @ mean if name in reads else value
