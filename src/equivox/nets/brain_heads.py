"""Heads that read age, sex or a diagnosis from the scalars of a brain's code."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn


class BrainHeads(nn.Module):
    """One perceptron per target; scalars do not turn with the head, so neither do the answers.

    Parameters
    ----------
    width
        Scalars of the code.
    outputs
        Target -> numbers of its head: 1 for age (standardised) and sex (logit of male), one logit per diagnosis.
    hidden
        Units between.
    dropout
        Before them, in training.
    generator
        Source of the first weights.

    Examples
    --------
    >>> heads = BrainHeads(128, {"age": 1, "sex": 1})
    >>> {name: tuple(answer.shape) for name, answer in heads(torch.zeros(2, 128)).items()}
    {'age': (2, 1), 'sex': (2, 1)}
    """

    def __init__(
        self,
        width: int,
        outputs: Mapping[str, int],
        *,
        hidden: int = 64,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.heads = nn.ModuleDict()
        for name, count in outputs.items():
            layers = [nn.utils.skip_init(nn.Linear, width, hidden), nn.utils.skip_init(nn.Linear, hidden, count)]
            with torch.no_grad():
                for layer in layers:
                    layer.weight.normal_(std=layer.in_features**-0.5, generator=generator)
                    layer.bias.zero_()
            self.heads[name] = nn.Sequential(nn.LayerNorm(width), nn.Dropout(dropout), layers[0], nn.SiLU(), layers[1])

    def forward(self, scalars: Float[Tensor, "batch scalar"]) -> dict[str, Float[Tensor, "batch output"]]:
        """Numbers per target."""
        return {name: head(scalars) for name, head in self.heads.items()}
