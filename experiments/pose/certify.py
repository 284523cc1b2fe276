"""Measure how equivariant a rotation network is: exact symmetries, generic angles, the grid's own floor, a control.

    python experiments/pose/certify.py --weights W/final/last.pt

``build_model.py`` writes the result into the model folder as ``certificate.json``.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor

import equivox
from equivox.geometry.rotations import cube_group, rotation_from_vector
from equivox.nets.head_pose import HeadPoseNet
from equivox.testing import band_limited_field, equivariance_error, plain_control

ANGLES_DEG = (5, 10, 20, 30, 45, 60, 90, 120, 150, 180)
AXES = 6
WIDTH, SPREAD = 3.0, 5.0
"""Of the Gaussians [voxels] that the band-limited crops are made of."""
IRREPS_OUT = "1x1e + 2x1o"


def certificate(network: HeadPoseNet, *, seed: int = 0) -> dict[str, Any]:
    """Relative errors of the network's nine numbers, by angle about random axes, with floor and control."""
    channels = f"{network.levels[0][0].conv.irreps_in.dimension}x0e"
    draw = torch.Generator().manual_seed(seed)
    axes = functional.normalize(torch.randn(AXES, 3, generator=draw, dtype=torch.float64), dim=1)
    exact = network.float().eval()
    cube = equivariance_error(
        exact, channels, IRREPS_OUT, cube_group(improper=True), generator=draw, method="grid", side=network.side,
        batch=1, dtype=torch.float32,
    )  # fmt: skip
    control = plain_control(channels, IRREPS_OUT, generator=draw, kernel_size=5, dtype=torch.float32)
    curve, plain, floor = {}, {}, {}
    for angle in ANGLES_DEG:
        turns = rotation_from_vector(axes * torch.deg2rad(torch.tensor(float(angle), dtype=torch.float64)))
        settings: dict[str, Any] = {"batch": 4, "width_mm": WIDTH, "spread_mm": SPREAD, "dtype": torch.float32}
        again = torch.Generator().manual_seed(seed + 1)
        error = equivariance_error(exact, channels, IRREPS_OUT, turns, generator=again, side=network.side, **settings)
        curve[str(angle)] = _rms(error)
        again = torch.Generator().manual_seed(seed + 1)
        error = equivariance_error(control, channels, IRREPS_OUT, turns, generator=again, side=33, **settings)
        plain[str(angle)] = _rms(error)
        floor[str(angle)] = _resampling_error(channels, turns, network.side, torch.Generator().manual_seed(seed + 1))
    return {
        "equivox_version": equivox.__version__,
        "network": "rotate",
        "what": "rms |f(R x) - D(R) f(x)| / rms |f(x)| of the nine numbers (1e, two 1o) before the read-out",
        "cube_group": {
            "input": f"white noise, {network.side} voxels a side, float32, all 48 symmetries (24 proper)",
            "largest_relative_error": float(cube.max()),
            "tolerance": 1e-4,
            "holds": bool(cube.max() <= 1e-4),
        },
        "generic_angles": {
            "input": f"12 Gaussians of {WIDTH} voxels, evaluated at rotated points; {AXES} random axes, 4 crops",
            "relative_error_by_angle_deg": curve,
            "resampling_floor_by_angle_deg": floor,
            "resampling_floor": "rms error of the input itself if it is turned by trilinear interpolation instead",
            "plain_convolution_by_angle_deg": plain,
            "control_fails": min(plain.values()) > 10 * max(1e-6, float(cube.max())) and plain["90"] > 0.1,
        },
        "seed": seed,
    }


def _rms(errors: Tensor) -> float:
    """Over axes, rounded for reading."""
    return round(float(errors.square().mean().sqrt()), 6)


def _resampling_error(channels: str, turns: Tensor, side: int, generator: torch.Generator) -> float:
    """Relative rms difference between fields turned analytically and by trilinear interpolation."""
    fields = band_limited_field(channels, generator=generator, batch=4, width_mm=WIDTH, spread_mm=SPREAD)
    plain = fields.sample((side,) * 3)
    axis = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2) / ((side - 1) / 2)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    errors = []
    for turn in turns:
        where = (grid @ turn).flip(-1)[None].expand(len(plain), -1, -1, -1, -1)
        resampled = functional.grid_sample(plain, where, align_corners=True)
        true = fields.sample((side,) * 3, rotation=turn)
        errors.append((resampled - true).square().mean().sqrt() / plain.square().mean().sqrt())
    return _rms(torch.stack(errors))


def main() -> None:
    """Print the certificate of a checkpoint."""
    from rotate_train import load_network

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(certificate(load_network(args.weights)), indent=2))


if __name__ == "__main__":
    main()
