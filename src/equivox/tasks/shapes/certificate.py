"""What can be promised of a classifier without data: whether its logits stay when a volume turns with the cube."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import equivox
from equivox.geometry.rotations import rotation_about
from equivox.tasks.shapes.config import InputConfig
from equivox.tasks.shapes.data import rotate_volume

TOLERANCE = 1e-3
"""Largest relative change of the logits in float32 that counts as none."""


@torch.inference_mode()
def certify_classifier(network: nn.Module, config: InputConfig) -> dict[str, Any]:
    """Measure the change of the logits under three turns that generate the cube's 24, on smooth noise.

    Relative to the spread of the logits over classes. Angles between are measured on data: `equivox shapes evaluate`.
    """
    draw = torch.Generator().manual_seed(0)
    side = config.side
    axis = (torch.arange(side) - (side - 1) / 2) / side
    ball = torch.exp(-0.5 * (axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2) / 0.16**2)
    noise = torch.randn(1, config.channels, side, side, side, generator=draw)
    volume = torch.nn.functional.avg_pool3d(noise, 3, stride=1, padding=1) * ball
    before = network(volume)
    elements = {
        "quarter turn about x": rotation_about("x", 90.0),
        "half turn about y": rotation_about("y", 180.0),
        "third of a turn about (1, 1, 1)": rotation_about("x", 90.0) @ rotation_about("y", 90.0),
    }
    size = (before - before.mean(dim=1, keepdim=True)).abs().max().clamp_min(1e-12)
    errors = {
        name: float((network(rotate_volume(volume[0], element)[None]) - before).abs().max() / size)
        for name, element in elements.items()
    }
    return {
        "equivox_version": equivox.__version__,
        "input": f"smooth noise, {side} voxels a side, float32",
        "network": "classify",
        "relative_change_of_logits": errors,
        "tolerance": TOLERANCE,
        "rotations_hold": max(errors.values()) <= TOLERANCE,
        "generic_angles": "not measured: needs data",
    }
