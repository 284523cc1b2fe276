"""Layers that keep equivariance. Fields are tensors (batch, channel, x, y, z); channels follow an ``Irreps`` layout."""

from equivox.kernels.radial import GaussianShells, SmoothFinite
from equivox.nn.conv3d import SteerableConv3d
from equivox.nn.gate import Gate
from equivox.nn.norm import FieldBatchNorm, FieldInstanceNorm
from equivox.nn.pool import AveragePool3d, GlobalPool, NormMaxPool3d

__all__ = [
    "AveragePool3d",
    "FieldBatchNorm",
    "FieldInstanceNorm",
    "Gate",
    "GaussianShells",
    "GlobalPool",
    "NormMaxPool3d",
    "SmoothFinite",
    "SteerableConv3d",
]
