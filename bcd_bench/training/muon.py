"""Muon in the precision that a device computes fast, and for convolution kernels reshaped as matrices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from bcd_bench.util.devices import fast_bf16

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["KernelMatrices", "muon_optimizer"]


def muon_optimizer(
    params: Iterable[Any], device_type: str, *, lr: float, weight_decay: float, adjust_lr_fn: str = "original"
) -> torch.optim.Muon:
    """`torch.optim.Muon` over matrices, or over parameter groups of them, on "cpu" or "cuda".

    On devices with slow bfloat16 (`bcd_bench.util.devices.fast_bf16`), it orthogonalises in float32.
    """
    import torch

    if fast_bf16(device_type):
        return torch.optim.Muon(params, lr, weight_decay, adjust_lr_fn=adjust_lr_fn)
    from bcd_bench.training.muon_fp32 import Float32Muon

    return Float32Muon(params, lr, weight_decay, adjust_lr_fn=adjust_lr_fn)


class KernelMatrices:
    """Convolution kernels [out, in, k, k] as matrices [out, k * k * in] for `torch.optim.Muon`.

    Each kernel is treated as the matrix that maps its receptive field to its output channels (Jordan et al., 2024). The
    matrices share the memory of the kernels, so the kernels must be in channels_last format and must not be moved:
    moving or converting the model afterwards detaches them from their matrices.

    Pass `matrices` to the optimiser, and call `take_gradients` before each of its steps.
    """

    def __init__(self, kernels: Iterable[nn.Parameter]) -> None:
        """Raises `ValueError` for a kernel that is not in channels_last format."""
        from torch import nn

        self._kernels = list(kernels)
        self.matrices: list[nn.Parameter] = [nn.Parameter(_as_matrix(kernel.detach())) for kernel in self._kernels]
        """One matrix for each kernel, in the same order."""
        for kernel, matrix in zip(self._kernels, self.matrices, strict=True):
            if matrix.data_ptr() != kernel.data_ptr():
                raise ValueError(f"the kernel of shape {tuple(kernel.shape)} is not in channels_last format")

    def take_gradients(self) -> None:
        """Move the gradients of the kernels to the matrices; None for kernels without a gradient."""
        for kernel, matrix in zip(self._kernels, self.matrices, strict=True):
            matrix.grad = None if kernel.grad is None else _as_matrix(kernel.grad)
            kernel.grad = None


def _as_matrix(kernel: Tensor) -> Tensor:
    """[out, in, k, k] as [out, k * k * in], in the same memory if the kernel is in channels_last format."""
    return kernel.permute(0, 2, 3, 1).reshape(len(kernel), -1)
