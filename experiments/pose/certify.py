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
from rotate_data import Stack, load_stacks
from rotate_train import DATA, load_network
from scipy import ndimage
from torch import Tensor, nn

import equivox
from equivox.geometry.rotations import cube_group, geodesic_angle, rotation_from_vector
from equivox.geometry.space import Volume
from equivox.nets.head_pose import HeadPoseNet, soft_ball
from equivox.nets.head_template import HeadTemplate
from equivox.nets.readout import read_out
from equivox.simulate.anatomy import HeadAnatomy
from equivox.simulate.config import HeadSimulation
from equivox.simulate.head import simulate_heads
from equivox.tasks.pose.anatomy import load_head_anatomy
from equivox.tasks.pose.register import RegisterConfig, Registration, register_head
from equivox.tasks.pose.rotate import CropConfig, head_cube, network_input, scaled_by_brain
from equivox.testing import band_limited_field, equivariance_error, plain_control

ANGLES_DEG = (5, 10, 20, 30, 45, 60, 90, 120, 150, 180)
AXES = 6
WIDTH, SPREAD = 3.0, 5.0
"""Of the Gaussians [voxels] that the band-limited crops are made of."""
IRREPS_OUT = "1x1e + 2x1o"
HEADS = 6
TURNED = ("fet-03_run-1", "fet-06_run-1", "fet-10_run-1")
"""Stacks of 3 mm that the template is turned with."""


def certificate(
    network: HeadPoseNet, anatomy: HeadAnatomy, template: HeadTemplate | None = None, *, seed: int = 0
) -> dict[str, Any]:
    """Errors under the cube's symmetries (exact), then by angle about random axes, with floor and control."""
    channels = f"{network.levels[0][0].conv.irreps_in.dimension}x0e"
    draw = torch.Generator().manual_seed(seed)
    axes = functional.normalize(torch.randn(AXES, 3, generator=draw, dtype=torch.float64), dim=1)
    exact = network.float().eval()
    cube = equivariance_error(
        exact, channels, IRREPS_OUT, cube_group(improper=True), generator=draw, method="grid", side=network.side,
        batch=1, dtype=torch.float32,
    )  # fmt: skip
    control = plain_control(channels, IRREPS_OUT, generator=draw, kernel_size=5, dtype=torch.float32)
    return {
        "equivox_version": equivox.__version__,
        "network": "rotate",
        "seed": seed,
        "cube_group": {
            "input": f"white noise, {network.side} voxels a side, float32, all 48 symmetries (24 proper)",
            "largest_relative_error": float(cube.max()),
            "tolerance": 1e-4,
            "holds": bool(cube.max() <= 1e-4),
        },
        "generic_angles": _heads(exact, control, anatomy, axes, seed),
        "generic_angles_far_from_heads": _random_fields(exact, control, channels, axes, seed),
        **({} if template is None else {"template_at_generic_angles": _template(template, axes)}),
    }


def _template(template: HeadTemplate, axes: Tensor) -> dict[str, Any]:
    """Real stacks, as they are and band-limited by 4 mm, in turned worlds; given to the template without any guess."""
    stacks = [stack for stack in load_stacks(DATA / "epi") if stack.id in TURNED]

    def answer(stack: Stack, volume: Volume, turn: Tensor) -> Registration:
        affine = torch.eye(4, dtype=torch.float64)
        affine[:3, :3] = turn
        turned = Volume(volume.data, affine @ volume.affine, volume.name)
        cube, known = head_cube(turned, turn @ stack.center_mm)
        return register_head(template, cube, known, stack.volume_ml, torch.zeros(0, 3, 3), RegisterConfig())

    result: dict[str, Any] = {
        "input": f"{', '.join(TURNED)} (EPI, 3 mm) in worlds turned about 2 random axes; 3 mm cubes cut by "
        "trilinear interpolation",
        "what": "rms angle of the answer to the turned answer of the head as it lay, and rms distance of the shifts",
    }
    for name, sigma_mm in (("as_measured", 0.0), ("band_limited_by_4_mm", 4.0)):
        degrees: dict[str, float] = {}
        distances: dict[str, float] = {}
        volumes = [_blurred(stack.volume, sigma_mm) for stack in stacks]
        before = [answer(s, v, torch.eye(3, dtype=torch.float64)) for s, v in zip(stacks, volumes, strict=True)]
        for angle in (10, 45, 90, 180):
            turns = rotation_from_vector(axes[:2] * torch.deg2rad(torch.tensor(float(angle), dtype=torch.float64)))
            pairs = [
                (turn, first, answer(stack, volume, turn))
                for turn in turns for first, stack, volume in zip(before, stacks, volumes, strict=True)
            ]  # fmt: skip
            angles = [torch.rad2deg(geodesic_angle(a.rotation, turn @ b.rotation)) for turn, b, a in pairs]
            degrees[str(angle)] = _rms(torch.stack(angles))
            distances[str(angle)] = _rms(torch.stack([(a.shift_mm - turn @ b.shift_mm).norm() for turn, b, a in pairs]))
        result[name] = {"rotation_error_deg_by_angle_deg": degrees, "shift_error_mm_by_angle_deg": distances}
    return result


def _blurred(volume: Volume, sigma_mm: float) -> Volume:
    """Smoothed by a Gaussian."""
    sigma = [sigma_mm / float(size) for size in volume.voxel_size_mm]
    data = torch.from_numpy(ndimage.gaussian_filter(volume.data[0].numpy(), sigma))[None]
    return Volume(data, volume.affine, volume.name)


def _smoothed_4_mm(fine: Tensor) -> Tensor:
    """A Gaussian of 4 mm on a 2 mm grid."""
    offsets = torch.arange(-6, 7, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / 2.0) ** 2)
    for axis in range(3):
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = -1
        pads = [6 if index // 2 == 2 - axis else 0 for index in range(6)]
        weights = (kernel / kernel.sum()).reshape(shape)
        fine = functional.conv3d(functional.pad(fine, pads, mode="replicate"), weights)
    return fine


def _heads(network: nn.Module, control: nn.Module, anatomy: HeadAnatomy, axes: Tensor, seed: int) -> dict[str, Any]:
    """Simulated heads on a 2 mm grid, band-limited by a Gaussian of 4 mm and turned there; the whole rotation stage."""
    config = CropConfig()
    draw = torch.Generator().manual_seed(seed + 2)
    settings = HeadSimulation(brain_volume_ml=(290.0, 290.0), field_of_view_cut=0.0, wild_contrast=0.0)
    heads = simulate_heads(
        HEADS, shape=(72, 72, 72), voxel_size_mm=2.0, anatomy=anatomy, config=settings, generator=draw
    )
    fine = _smoothed_4_mm(heads.image)
    axis = (torch.arange(config.side, dtype=torch.float32) - (config.side - 1) / 2) * config.voxel_size_mm
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)

    def crops(turn: Tensor) -> Tensor:
        where = (grid @ turn.float() / 71.0).flip(-1)[None].expand(HEADS, -1, -1, -1, -1)
        return functional.grid_sample(fine, where, align_corners=True, padding_mode="border")

    def channels(image: Tensor) -> Tensor:
        valid = torch.ones_like(image)
        return network_input(scaled_by_brain(image, valid), valid, config)

    def unit(nine: Tensor) -> Tensor:
        return functional.normalize(nine.unflatten(1, (3, 3)), dim=2)

    half = (config.side - 1) / 2 * config.voxel_size_mm
    ball = (soft_ball(config.side) > 0.5).expand(HEADS, 1, -1, -1, -1)
    still = crops(torch.eye(3))
    middle = (slice(None), slice(None), *[slice(config.side // 2 - 1, config.side // 2 + 1)] * 3)
    result: dict[str, dict[str, float]] = {"axes": {}, "degrees": {}, "floor": {}, "plain": {}}
    with torch.no_grad():
        before, plain = network(channels(still)), control(channels(still))[middle].mean((2, 3, 4))
        for angle in ANGLES_DEG:
            errors: dict[str, list[Tensor]] = {name: [] for name in result}
            for turn in rotation_from_vector(axes * torch.deg2rad(torch.tensor(float(angle), dtype=torch.float64))):
                rotation = turn.float()
                turned = crops(turn)
                inputs = channels(turned)
                after = network(inputs)
                difference = unit(after) - unit(before) @ rotation.mT
                errors["axes"].append(difference.square().sum((1, 2)).mean().sqrt() / 3**0.5)
                found, expected = read_out(after).rotation, rotation @ read_out(before).rotation
                errors["degrees"].append(torch.rad2deg(geodesic_angle(found, expected)).mean())
                where = (grid @ rotation / half).flip(-1)[None].expand(HEADS, -1, -1, -1, -1)
                twice = functional.grid_sample(still, where, align_corners=True, padding_mode="border")
                errors["floor"].append((twice - turned)[ball].square().mean().sqrt() / turned[ball].std())
                other = control(inputs)[middle].mean((2, 3, 4)).unflatten(1, (3, 3))
                wanted = plain.unflatten(1, (3, 3)) @ rotation.mT
                errors["plain"].append((other - wanted).square().mean().sqrt() / wanted.square().mean().sqrt())
            for name, values in errors.items():
                result[name][str(angle)] = _rms(torch.stack(values))
    return {
        "input": f"{HEADS} simulated heads drawn at 2 mm, band-limited by a 4 mm Gaussian, turned about {AXES} "
        "random axes on that grid, cropped at 4 mm; local contrast and network together",
        "relative_error_by_angle_deg": result["axes"],
        "rotation_error_deg_by_angle_deg": result["degrees"],
        "resampling_floor_by_angle_deg": result["floor"],
        "resampling_floor": "rms error of the input (relative to its SD) if it is turned on the 4 mm grid instead",
        "plain_convolution_by_angle_deg": result["plain"],
        "control_fails": result["plain"]["90"] > 0.5,
        "what": "rms difference of the three unit axes from the turned ones; mean angle of the rotations read out",
    }


def _random_fields(network: HeadPoseNet, control: nn.Module, channels: str, axes: Tensor, seed: int) -> dict[str, Any]:
    """Analytic sums of Gaussians, nothing like a head: what the discrete network does where it was never trained."""
    curve, plain, floor = {}, {}, {}
    for angle in ANGLES_DEG:
        turns = rotation_from_vector(axes * torch.deg2rad(torch.tensor(float(angle), dtype=torch.float64)))
        settings: dict[str, Any] = {"batch": 4, "width_mm": WIDTH, "spread_mm": SPREAD, "dtype": torch.float32}
        again = torch.Generator().manual_seed(seed + 1)
        error = equivariance_error(network, channels, IRREPS_OUT, turns, generator=again, side=network.side, **settings)
        curve[str(angle)] = _rms(error)
        again = torch.Generator().manual_seed(seed + 1)
        error = equivariance_error(control, channels, IRREPS_OUT, turns, generator=again, side=33, **settings)
        plain[str(angle)] = _rms(error)
        floor[str(angle)] = _resampling_error(channels, turns, network.side, torch.Generator().manual_seed(seed + 1))
    return {
        "input": f"12 Gaussians of {WIDTH} voxels, evaluated at rotated points; {AXES} random axes, 4 fields",
        "relative_error_by_angle_deg": curve,
        "resampling_floor_by_angle_deg": floor,
        "plain_convolution_by_angle_deg": plain,
        "what": "rms |f(R x) - D(R) f(x)| / rms |f(x)| of the nine unnormalised numbers; the soft-max read-out "
        "decides between places, so inputs without a head give unstable answers",
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(certificate(load_network(args.weights), load_head_anatomy(DATA / "templates")), indent=2))


if __name__ == "__main__":
    main()
