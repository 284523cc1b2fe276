"""Encoders that are not equivariant, with the same call as ours: what the published system builds on (soe 1.3, 3.4).

The published code of a volume is ``z w^T``, every vector along one learned ``w``: rank one, so no rotation can be read
from it. The corrected head is a full linear map from the latent to N x 3 numbers. The networks of MONAI need the extra
``train``.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any, Literal

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import ConfigError, MissingExtraError
from equivox.nets.brain_code import BrainCode
from equivox.nn.vector_frames import gram_invariants

HeadName = Literal["full", "published"]
ReadName = Literal["latent", "gram"]
GRAM_VECTORS = 16
"""Vectors whose Gram matrix is read: 136 invariants."""


class _Baseline(nn.Module):
    """A backbone, and vectors from its latent."""

    def __init__(
        self,
        side: int,
        voxel_size_mm: float,
        latent: int,
        *,
        head: HeadName,
        read: ReadName,
        polar: int,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        if head not in ("full", "published") or read not in ("latent", "gram"):
            raise ConfigError(f"head is 'full' or 'published', read 'latent' or 'gram'; got {head!r} and {read!r}.")
        if side < 16 or side % 16:
            raise ConfigError(f"side is {side} voxels; these networks halve it four times: give a multiple of 16.")
        self.side, self.voxel_size_mm, self.latent_size = side, voxel_size_mm, latent
        self.head_name: HeadName = head
        self.read: ReadName = read
        outputs = 3 if head == "published" else 3 * polar
        self.vectors = nn.utils.skip_init(nn.Linear, 1 if head == "published" else latent, outputs, bias=False)
        with torch.no_grad():
            self.vectors.weight.uniform_(-1.0, 1.0, generator=generator)
            if head == "full":
                self.vectors.weight.mul_((3.0 / latent) ** 0.5)

    def latent(self, volume: Float[Tensor, "batch 1 x y z"]) -> Float[Tensor, "batch latent"]:
        """What the backbone makes of a volume."""
        raise NotImplementedError

    def prepared(
        self, volume: Float[Tensor, "batch 1 x y z"], mask: Float[Tensor, "batch 1 x y z"]
    ) -> Float[Tensor, "batch 1 x y z"]:
        """Standardised inside the mask; as published over the whole volume, background included."""
        if self.head_name == "published":
            spread, mean = torch.std_mean(volume, dim=(2, 3, 4), keepdim=True, correction=0)
            return (volume - mean) / spread.clamp_min(1e-6)
        weight = mask.to(volume.dtype)
        total = weight.sum(dim=(2, 3, 4), keepdim=True).clamp_min(1.0)
        mean = (volume * weight).sum(dim=(2, 3, 4), keepdim=True) / total
        square = ((volume - mean).square() * weight).sum(dim=(2, 3, 4), keepdim=True) / total
        return (volume - mean) * weight / square.sqrt().clamp_min(1e-6)

    def forward(self, volume: Float[Tensor, "batch 1 x y z"], mask: Float[Tensor, "batch 1 x y z"]) -> BrainCode:
        """Encode; there are no axial vectors and no pseudo-scalars."""
        if tuple(volume.shape[2:]) != (self.side,) * 3:
            raise ValueError(f"this encoder takes cubes of {self.side} voxels a side, got {tuple(volume.shape)}.")
        latent = self.latent(self.prepared(volume, mask))
        polar = self.vectors(latent[:, :, None] if self.head_name == "published" else latent).reshape(
            len(latent), -1, 3
        )
        scalars = latent if self.read == "latent" else gram_invariants(polar[:, :GRAM_VECTORS])
        return BrainCode(polar, polar[:, :0], scalars, latent[:, :0])


class BrainCNN(_Baseline):
    """The published base network: four blocks of convolutions, norm, leaky ReLU and max pool, 1-16-32-64-16 channels.

    Parameters
    ----------
    side, voxel_size_mm
        Of the cube; a multiple of 16. The network ignores the voxel size.
    head
        ``"full"``: the corrected linear map to ``polar`` vectors; ``"published"``: every latent times one vector.
    read
        What the scalars are: the ``"latent"`` itself, or Gram invariants of the first 16 vectors.
    norm
        ``"group"``, or ``"batch"`` as published.
    convolutions
        Per block; 1 in the published scripts, up to 6.
    dropout
        With the published rates 0, 0.1, 0.2, 0.
    polar
        Vectors of the full head.
    generator
        Source of the first weights.
    """

    def __init__(
        self,
        side: int = 64,
        voxel_size_mm: float = 3.3,
        *,
        head: HeadName = "full",
        read: ReadName = "latent",
        norm: Literal["group", "batch"] = "group",
        convolutions: int = 1,
        dropout: bool = False,
        polar: int = 64,
        generator: torch.Generator | None = None,
    ) -> None:
        latent = 16 * (side // 16) ** 3
        super().__init__(side, voxel_size_mm, latent, head=head, read=read, polar=polar, generator=generator)
        layers: list[nn.Module] = []
        widths = (1, 16, 32, 64, 16)
        for block, rate in enumerate((0.0, 0.1, 0.2, 0.0)):
            for repeat in range(convolutions):
                before = widths[block] if repeat == 0 else widths[block + 1]
                after = widths[block + 1]
                layers.append(_convolution(before, after, generator))
                layers.append(nn.BatchNorm3d(after) if norm == "batch" else nn.GroupNorm(8, after))
                layers += [nn.LeakyReLU(0.2), nn.Dropout3d(rate if dropout else 0.0)]
            layers.append(nn.MaxPool3d(2))
        self.blocks = nn.Sequential(*layers)

    def latent(self, volume: Float[Tensor, "batch 1 x y z"]) -> Float[Tensor, "batch latent"]:
        """The last block, flattened."""
        result: Tensor = self.blocks(volume).flatten(1)
        return result


class BrainViT(_Baseline):
    """The published vision transformer of MONAI: patches of 16, width 768, 6 layers, 3 heads.

    Parameters
    ----------
    side, voxel_size_mm, head, read, polar, generator
        As for :class:`BrainCNN`.
    token
        ``"mean"`` of all tokens, or ``"first"`` as published: the corner patch, which holds no brain.
    layers, heads, width
        Size of the transformer.
    """

    def __init__(
        self,
        side: int = 64,
        voxel_size_mm: float = 3.3,
        *,
        head: HeadName = "full",
        read: ReadName = "latent",
        token: Literal["mean", "first"] = "mean",
        layers: int = 6,
        heads: int = 3,
        width: int = 768,
        polar: int = 64,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(side, voxel_size_mm, width, head=head, read=read, polar=polar, generator=generator)
        self.token = token
        self.transformer = _monai(
            "monai.networks.nets.vit", "ViT",
            in_channels=1, img_size=(side,) * 3, patch_size=(16,) * 3, hidden_size=width, mlp_dim=width,
            num_layers=layers, num_heads=heads, proj_type="conv", pos_embed_type="sincos", classification=False,
        )  # fmt: skip
        _draw_weights(self.transformer, generator)

    def latent(self, volume: Float[Tensor, "batch 1 x y z"]) -> Float[Tensor, "batch latent"]:
        """Mean of the tokens, or the first one."""
        tokens: Tensor = self.transformer(volume)[0]
        return tokens[:, 0] if self.token == "first" else tokens.mean(dim=1)


class BrainSwin(_Baseline):
    """The published Swin transformer of MONAI: patches of 2, windows of 7, depths 2, heads 3 to 24.

    Parameters
    ----------
    side, voxel_size_mm, head, read, polar, generator
        As for :class:`BrainCNN`; the side a multiple of 32.
    width
        Features of the first stage, 24 or 48; the latent has 16 times as many.
    """

    def __init__(
        self,
        side: int = 64,
        voxel_size_mm: float = 3.3,
        *,
        head: HeadName = "full",
        read: ReadName = "latent",
        width: int = 24,
        polar: int = 64,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(side, voxel_size_mm, 16 * width, head=head, read=read, polar=polar, generator=generator)
        if side % 32:
            raise ConfigError(f"side is {side} voxels; the Swin transformer needs a multiple of 32.")
        self.transformer = _monai(
            "monai.networks.nets.swin_unetr", "SwinTransformer",
            in_chans=1, embed_dim=width, window_size=(7,) * 3, patch_size=(2,) * 3, depths=(2, 2, 2, 2),
            num_heads=(3, 6, 12, 24), spatial_dims=3,
        )  # fmt: skip
        _draw_weights(self.transformer, generator)

    def latent(self, volume: Float[Tensor, "batch 1 x y z"]) -> Float[Tensor, "batch latent"]:
        """Mean over space of the last stage after a ReLU."""
        last: Tensor = self.transformer(volume)[-1]
        return functional.relu(last).mean(dim=(2, 3, 4))


def _monai(module: str, name: str, **options: Any) -> nn.Module:
    """A network of MONAI, or the sentence that says how to get it; without its use of what torch deprecates."""
    try:
        importlib.import_module("einops")  # MONAI's transformers need it and do not say so
    except ImportError as error:
        raise MissingExtraError("einops", "train", "This baseline encoder") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network: nn.Module = getattr(importlib.import_module(module), name)(**options)
    except ImportError as error:
        raise MissingExtraError("monai", "train", "This baseline encoder") from error
    return network


def _convolution(before: int, after: int, generator: torch.Generator | None) -> nn.Conv3d:
    """Of size 3, Xavier normal weights, bias 0."""
    layer = nn.utils.skip_init(nn.Conv3d, before, after, 3, padding=1)
    with torch.no_grad():
        layer.weight.normal_(std=(2.0 / (27 * (before + after))) ** 0.5, generator=generator)
        layer.bias.zero_()
    return layer


def _draw_weights(network: nn.Module, generator: torch.Generator | None) -> None:
    """Weights N(0, 0.02), biases 0, from our own generator: the library's classes draw from the global one."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Linear | nn.Conv3d):
                module.weight.normal_(std=0.02, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
        for name, parameter in network.named_parameters():
            if name.endswith("relative_position_bias_table"):
                parameter.normal_(std=0.02, generator=generator)
