"""Layers that keep equivariance. Fields are tensors (batch, channel, x, y, z); channels follow an ``Irreps`` layout."""

from equivox.kernels.matched import MatchedShells
from equivox.kernels.radial import GaussianShells, SmoothFinite
from equivox.nn.conv3d import SteerableConv3d
from equivox.nn.dropout import FieldDropout
from equivox.nn.gate import Gate
from equivox.nn.linear import FieldLinear
from equivox.nn.lowpass import BlurPool3d, LowPass3d
from equivox.nn.norm import FieldBatchNorm, FieldInstanceNorm
from equivox.nn.norm_activation import NormActivation
from equivox.nn.pool import AveragePool3d, GlobalPool, NormMaxPool3d

__all__ = [
    "AveragePool3d",
    "BlurPool3d",
    "FieldBatchNorm",
    "FieldDropout",
    "FieldInstanceNorm",
    "FieldLinear",
    "Gate",
    "GaussianShells",
    "GlobalPool",
    "LowPass3d",
    "MatchedShells",
    "NormActivation",
    "NormMaxPool3d",
    "SmoothFinite",
    "SteerableConv3d",
]
