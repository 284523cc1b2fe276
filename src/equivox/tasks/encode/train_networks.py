"""What is trained around an encoder: projections, a slow copy, decoders, supervised heads."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import ConfigError
from equivox.nets.brain_code import BrainCode
from equivox.nets.brain_decoder import BrainDecoder, CodeDecoder
from equivox.nets.brain_encoder import BrainEncoder, build_encoder
from equivox.nets.brain_heads import BrainHeads
from equivox.run.seeds import generator_for
from equivox.tasks.encode.train_config import PretrainConfig


class PretrainNetwork(nn.Module):
    """An encoder with whatever its objective needs beside it; only ``encoder`` is kept in the end.

    Parameters
    ----------
    config
        The recipe.
    seed
        Of the first weights.

    Raises
    ------
    ConfigError
        If the objective does not fit the encoder.
    """

    def __init__(self, config: PretrainConfig, seed: int) -> None:
        super().__init__()
        draw = generator_for(seed, "weights")
        self.encoder = seeded_encoder(config.network_fields(), draw)
        sizes = code_sizes(self.encoder)
        terms = config.terms
        if {"contrast", "bootstrap"} & set(terms):
            self.project = perceptron(sizes["scalars"], 2 * config.projection, config.projection, draw)
        if "bootstrap" in terms:
            self.predict = perceptron(config.projection, 2 * config.projection, config.projection, draw)
            self.slow = nn.ModuleList([copy.deepcopy(self.encoder), copy.deepcopy(self.project)])
            self.slow.requires_grad_(False)
        if "erased" in terms:
            if not isinstance(self.encoder, BrainEncoder):
                raise ConfigError(
                    "masked reconstruction needs an encoder with equivariant fields; take --network brain_encoder."
                )
            self.inpaint = BrainDecoder(self.encoder.irreps_last, generator=draw)
        if "autoencoder" in terms:
            self.decode = CodeDecoder(sizes["scalars"], sizes["polar"], config.side, generator=draw)
        if "divergence" in terms:
            self.log_variance = linear(sizes["scalars"], sizes["scalars"] + sizes["polar"], draw, scale=0.1)

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """Let the slow copy follow."""
        encoder, project = self.slow
        for slow, fast in ((encoder, self.encoder), (project, self.project)):
            for one, other in zip(slow.parameters(), fast.parameters(), strict=True):
                one.lerp_(other, 1.0 - momentum)
            for kept, now in zip(slow.buffers(), fast.buffers(), strict=True):
                kept.copy_(now)

    def slow_projection(
        self, volume: Float[Tensor, "batch 1 x y z"], mask: Float[Tensor, "batch 1 x y z"]
    ) -> Float[Tensor, "batch feature"]:
        """What the slow copy says, without gradients."""
        with torch.no_grad():
            encoder, project = self.slow
            result: Tensor = project(encoder(volume, mask).scalars)
        return result

    def inpainted(
        self, volume: Float[Tensor, "batch 1 x y z"], mask: Float[Tensor, "batch 1 x y z"]
    ) -> Float[Tensor, "batch 1 x y z"]:
        """The volume as the last field of the encoder tells it."""
        assert isinstance(self.encoder, BrainEncoder)
        field = self.encoder.fields(volume, mask)[-1][1]
        result: Tensor = self.inpaint(field)
        return result


class PredictionNetwork(nn.Module):
    """An encoder and a head per target on its scalars.

    Parameters
    ----------
    encoder
        Any encoder.
    outputs
        Target -> numbers that its head gives.
    hidden, dropout
        Of every head.
    seed
        Of the heads' first weights.
    """

    def __init__(
        self, encoder: nn.Module, outputs: Mapping[str, int], *, hidden: int, dropout: float, seed: int
    ) -> None:
        super().__init__()
        draw = generator_for(seed, "heads")
        self.encoder = encoder
        width = code_sizes(encoder)["scalars"]
        self.fields = {
            "architecture": "brain_heads", "width": width, "outputs": dict(outputs), "hidden": hidden,
            "dropout": dropout,
        }  # fmt: skip
        self.heads = BrainHeads(width, outputs, hidden=hidden, dropout=dropout, generator=draw)

    def forward(
        self, volume: Float[Tensor, "batch 1 x y z"], mask: Float[Tensor, "batch 1 x y z"]
    ) -> dict[str, Float[Tensor, "batch output"]]:
        """Numbers per target."""
        code: BrainCode = self.encoder(volume, mask)
        found: dict[str, Tensor] = self.heads(code.scalars.float())
        return found


def seeded_encoder(fields: Mapping[str, Any], draw: torch.Generator) -> nn.Module:
    """An encoder whose first weights come from a generator.

    Raises
    ------
    ConfigError
        If it has no such option.
    """
    options = dict(fields)
    return build_encoder(str(options.pop("architecture")), **options, generator=draw)


@torch.no_grad()
def code_sizes(encoder: nn.Module) -> dict[str, int]:
    """How many polar and axial vectors, scalars and pseudo-scalars a code has."""
    if isinstance(encoder, BrainEncoder):
        return dict(encoder.sizes)
    shape: Any = encoder
    before = encoder.training
    blank = torch.zeros(1, 1, *(int(shape.side),) * 3)
    code = encoder.eval()(blank, torch.ones_like(blank))
    encoder.train(before)
    return {name: int(getattr(code, name).shape[1]) for name in BrainCode._fields}


def linear(before: int, after: int, draw: torch.Generator, *, scale: float = 1.0) -> nn.Linear:
    """Weights N(0, scale^2 / inputs), bias 0."""
    layer = nn.utils.skip_init(nn.Linear, before, after)
    with torch.no_grad():
        layer.weight.normal_(std=scale * before**-0.5, generator=draw)
        layer.bias.zero_()
    return layer


def perceptron(before: int, hidden: int, after: int, draw: torch.Generator) -> nn.Sequential:
    """Two layers with a SiLU between; no batch statistics anywhere."""
    return nn.Sequential(linear(before, hidden, draw), nn.SiLU(), linear(hidden, after, draw))


def trained_parameters(modules: Sequence[nn.Module]) -> list[nn.Parameter]:
    """All that learn."""
    return [one for module in modules for one in module.parameters() if one.requires_grad]
