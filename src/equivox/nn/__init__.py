"""Layers that keep equivariance. Fields are tensors (batch, channel, x, y, z); channels follow an ``Irreps`` layout."""

from equivox.kernels.matched import MatchedShells
from equivox.kernels.one_hot import SoftOneHot
from equivox.kernels.radial import GaussianShells, SmoothFinite
from equivox.kernels.rings import RingShells
from equivox.nn.aggregation import aggregate
from equivox.nn.binomial_pool import BinomialPool3d, BinomialUpsample3d
from equivox.nn.blur2d import BlurSubsample2d
from equivox.nn.centered import CenteredPool3d, CenteredUpsample3d
from equivox.nn.conv3d import SteerableConv3d
from equivox.nn.dropout import FieldDropout
from equivox.nn.fold_network import fold
from equivox.nn.gate import Gate
from equivox.nn.initialise import draw_direct_, unit_variance_
from equivox.nn.linear import FieldLinear
from equivox.nn.lowpass import BlurPool3d, LowPass3d, Upsample3d
from equivox.nn.masked import MaskedFieldNorm, soft_ball_mask
from equivox.nn.norm import FieldBatchNorm, FieldGroupNorm, FieldInstanceNorm
from equivox.nn.norm_activation import NormActivation, NormReLU, NormSoftplus
from equivox.nn.pool import AveragePool3d, GlobalPool, NormMaxPool3d
from equivox.nn.pose_heads import PoseHead, PoseHypotheses, UnimodalHead
from equivox.nn.pose_losses import hard_loss, mixture_loss
from equivox.nn.projected_at import LiftingConvAt, ProjectedConvAt, ProjectedReadAt
from equivox.nn.projected_conv2d import ProjectedConv2d
from equivox.nn.residual import GatedConv3d, GatedResidual3d, PaddedBatchNorm
from equivox.nn.rotation_mixing import RotationMixing
from equivox.nn.rotation_norm import RotationBatchNorm2d, RotationLayerNorm2d
from equivox.nn.tensor_product import TensorProduct, TensorProductActivation
from equivox.nn.up_conv3d import SteerableUpConv3d
from equivox.nn.vector_attention import VectorAttention
from equivox.nn.vector_frames import (
    InvariantReadout,
    VectorFrame,
    cross_product,
    gram_invariants,
    gram_matrix,
    in_frame,
    orthonormal_frame,
)
from equivox.nn.vector_neurons import (
    VectorBatchNorm,
    VectorLeakyReLU,
    VectorLinear,
    VectorLinearLeakyReLU,
    VectorMaxPool,
    VectorRMSNorm,
    mean_pool_vectors,
    mix_vectors,
)

__all__ = [
    "AveragePool3d",
    "BinomialPool3d",
    "BinomialUpsample3d",
    "BlurPool3d",
    "BlurSubsample2d",
    "CenteredPool3d",
    "CenteredUpsample3d",
    "FieldBatchNorm",
    "FieldDropout",
    "FieldGroupNorm",
    "FieldInstanceNorm",
    "FieldLinear",
    "Gate",
    "GatedConv3d",
    "GatedResidual3d",
    "GaussianShells",
    "GlobalPool",
    "InvariantReadout",
    "LiftingConvAt",
    "LowPass3d",
    "MaskedFieldNorm",
    "MatchedShells",
    "NormActivation",
    "NormMaxPool3d",
    "NormReLU",
    "NormSoftplus",
    "PaddedBatchNorm",
    "PoseHead",
    "PoseHypotheses",
    "ProjectedConv2d",
    "ProjectedConvAt",
    "ProjectedReadAt",
    "RingShells",
    "RotationBatchNorm2d",
    "RotationLayerNorm2d",
    "RotationMixing",
    "SmoothFinite",
    "SoftOneHot",
    "SteerableConv3d",
    "SteerableUpConv3d",
    "TensorProduct",
    "TensorProductActivation",
    "UnimodalHead",
    "Upsample3d",
    "VectorAttention",
    "VectorBatchNorm",
    "VectorFrame",
    "VectorLeakyReLU",
    "VectorLinear",
    "VectorLinearLeakyReLU",
    "VectorMaxPool",
    "VectorRMSNorm",
    "aggregate",
    "cross_product",
    "draw_direct_",
    "fold",
    "gram_invariants",
    "gram_matrix",
    "hard_loss",
    "in_frame",
    "mean_pool_vectors",
    "mix_vectors",
    "mixture_loss",
    "orthonormal_frame",
    "soft_ball_mask",
    "unit_variance_",
]
