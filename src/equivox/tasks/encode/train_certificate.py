"""What can be promised of an encoder without data: how its code follows the symmetries of the cube."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

import equivox
from equivox.geometry.rotate import rotate_volume
from equivox.geometry.rotations import cube_group
from equivox.nets.brain_code import BrainCode, turn_code

TOLERANCE = 1e-8
"""Largest relative error in float64 that counts as none."""


@torch.inference_mode()
def certify_encoder(network: nn.Module, side: int) -> dict[str, Any]:
    """Errors of the four blocks under three turns that generate the cube's 24, and one mirror; on a lopsided phantom.

    Relative to the largest number of the block, axial vectors to that of the polar ones. Judged in float64; in float32
    standardised invariants, which are small differences of large numbers, show rounding. Angles between are measured on
    brains: ``equivox encode robustness``.
    """
    group = cube_group(improper=True)
    elements = {
        "quarter turn": next(one for one in group if float(one.trace()) == 1.0 and float(torch.det(one)) > 0),
        "third of a turn": next(one for one in group if float(one.trace()) == 0.0 and float(torch.det(one)) > 0),
        "half turn": next(one for one in group if float(one.trace()) == -1.0 and float(torch.det(one)) > 0),
        "mirror": torch.diag(torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)),
    }
    errors = _errors(network.eval().double(), side, elements, torch.float64)
    single = _errors(network.float(), side, elements, torch.float32)
    rotations = [max(values.values()) for name, values in errors.items() if name != "mirror"]
    return {
        "equivox_version": equivox.__version__,
        "input": f"a lopsided phantom, {side} voxels a side, float64",
        "network": "encoder",
        "relative_error": errors,
        "relative_error_float32": single,
        "tolerance": TOLERANCE,
        "rotations_hold": max(rotations) <= TOLERANCE,
        "mirror_holds": max(errors["mirror"].values()) <= TOLERANCE,
        "generic_angles": "not measured here: needs brains",
    }


def _errors(
    network: nn.Module, side: int, elements: dict[str, Tensor], dtype: torch.dtype
) -> dict[str, dict[str, float]]:
    """Per element and block."""
    volume, mask = (one.to(dtype) for one in phantom(side))
    before: BrainCode = network(volume, mask)
    errors: dict[str, dict[str, float]] = {}
    for name, element in elements.items():
        turned, brain = (rotate_volume(one, element[None]) for one in (volume, mask))
        found, wanted = network(turned, brain), turn_code(before, element[None])
        errors[name] = {block: _error(found, wanted, block) for block in BrainCode._fields}
    return errors


def phantom(side: int) -> tuple[Float[Tensor, "1 1 x y z"], Float[Tensor, "1 1 x y z"]]:
    """An egg with blobs in it that no rotation or mirror maps to itself, and its mask, which ends as a brain's does.

    A tail of the sigmoid down to 1e-38 would make products below what float32 holds in full, which a CPU handles at a
    tenth of its speed.
    """
    draw = torch.Generator().manual_seed(0)
    axis = (torch.arange(side, dtype=torch.float32) - (side - 1) / 2) / (side / 2)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    mask = torch.sigmoid(
        (1.0 - ((x / 0.62) ** 2 + (y / (0.75 + 0.1 * x)) ** 2 + (z / (0.6 + 0.1 * y)) ** 2)) * side / 4
    )
    mask = torch.where(mask > 1e-4, mask, 0.0)
    volume = torch.full_like(mask, 0.7)
    for _ in range(12):
        cx, cy, cz = (0.8 * (torch.rand(3, generator=draw) - 0.5)).tolist()
        width = 0.08 + 0.12 * float(torch.rand((), generator=draw))
        height = float(torch.rand((), generator=draw)) - 0.5
        volume = volume + height * torch.exp(-((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) / (2 * width**2))
    return (volume.clamp(0.05, 1.5) * mask)[None, None], mask[None, None]


def _error(found: BrainCode, wanted: BrainCode, block: str) -> float:
    one, other = getattr(found, block), getattr(wanted, block)
    if not other.numel():
        return 0.0
    size = wanted.polar if block == "axial" else other
    return float((one - other).abs().max() / size.abs().max().clamp_min(1e-12))
