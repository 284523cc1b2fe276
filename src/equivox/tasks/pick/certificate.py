"""What can be promised of a picker without data: whether its scores stay when a micrograph turns by a quarter."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import equivox
from equivox.tasks.pick.config import NETWORK
from equivox.tasks.pick.scoring import dense_scores, score_grid

TOLERANCE = 1e-3
"""Largest relative change of the scores in float32 that counts as none."""


@torch.inference_mode()
def certify_picker(network: nn.Module) -> dict[str, Any]:
    """Measure the change of the score map under a quarter turn and a mirror, which generate the square's eight.

    Relative to the spread of the scores on smoothed noise. Angles between are a matter of the grid of rotations and of
    the data; they are not measured here.
    """
    grid = score_grid(network)
    side = grid.field_px + 12 * grid.stride_px  # 13 x 13 outputs, the same seen from every side
    noise = torch.randn(1, 1, side, side, generator=torch.Generator().manual_seed(0))
    image = torch.nn.functional.avg_pool2d(noise, 3, stride=1, padding=1)
    before = dense_scores(network, image)
    spread = before.std().clamp_min(1e-12)

    def change(turned: Tensor, back: Tensor) -> float:
        return float((turned - back).abs().max() / spread)

    errors = {
        "quarter turn": change(dense_scores(network, torch.rot90(image, 1, (2, 3))), torch.rot90(before, 1, (1, 2))),
        "mirror": change(dense_scores(network, image.flip(3)), before.flip(2)),
    }
    return {
        "equivox_version": equivox.__version__,
        "input": f"smoothed noise, {side} pixels a side, float32",
        "network": NETWORK,
        "relative_change_of_scores": errors,
        "tolerance": TOLERANCE,
        "rotations_hold": max(errors.values()) <= TOLERANCE,
        "generic_angles": "not measured: a matter of the grid of rotations and of the data",
    }
