"""From a located head to its pose by a template: search all rotations, refine the best, keep what speaks against it.

The rotation network guesses; the template (:class:`equivox.nets.head_template.HeadTemplate`) is laid over the scan at
its guesses and on a grid of SO(3), the best places are refined by gradient in rotation, shift and size, and the highest
correlation wins. The correlation, and its lead over the best pose that points elsewhere, say how sure that is.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from equivox.geometry.rotations import geodesic_angle
from equivox.geometry.so3_grids import rotation_grid
from equivox.nets.head_template import HeadTemplate, TemplatePoints
from equivox.tasks.pose.rotate import (
    WORKING_SIDE,
    CropConfig,
    local_contrast,
    sample_crops,
    scaled_by_brain,
    size_factor,
)

FIELD_VOXEL_MM = 2.8
"""Of the cube that the template is laid over, for a brain of 290 mL: 64 voxels, 176 mm between the outermost."""
ELSEWHERE_DEG = 45.0
"""A pose that differs by more is another answer, not the same one less exactly."""


@dataclass(frozen=True, kw_only=True)
class RegisterConfig:
    """How the template is laid over a scan."""

    grid: str = "superfibonacci-576"
    """Rotations that are tried everywhere."""
    sizes: tuple[float, ...] = (-0.15, 0.0, 0.15)
    """Log sizes that every rotation is tried at: a mask may be a half too large or too small."""
    shift_mm: float = 10.0
    """The best rotations are tried at the centre and this far along the six directions of the axes."""
    shifted: int = 96
    """How many of them."""
    refined: int = 32
    """Best starts that are refined coarsely."""
    second_look: tuple[float, float] = (0.45, 0.1)
    """Where correlation and lead both stay below these, the search is repeated, about the place and size it found."""
    contrast_window: int = 9
    """Edge of the box of local contrast normalisation [voxels of 2.8 mm], odd."""
    contrast_floor: float = 0.1
    """Added to the local SD (brain = 1)."""
    shift_scale_mm: float = 12.0
    size_scale: float = 0.12
    """A shift and a log size of these scales cost as much as 0.01 of correlation."""


@dataclass(frozen=True, slots=True)
class Registration:
    """The best pose of a template in a scan."""

    rotation: Float[Tensor, "3 3"]
    """World from head."""
    shift_mm: Float[Tensor, "3"]
    """From the cube's centre to the head's origin, world axes."""
    log_size: float
    """Of the head, relative to the size that was expected."""
    size: float
    """Of the head, relative to a brain of 290 mL."""
    correlation: float
    """With the template, in [-1, 1]."""
    lead: float
    """Correlation less that of the best pose that differs by more than 45 degrees."""


def contrast_field(
    cube: Float[Tensor, "1 x y z"],
    valid: Float[Tensor, "1 x y z"],
    brain_volume_ml: float,
    config: RegisterConfig,
    *,
    offset_mm: Float[Tensor, "3"] | None = None,
) -> tuple[Float[Tensor, "2 side side side"], float]:
    """Local contrast and validity about a head's centre along the world's axes, scaled to the brain's size.

    Returns
    -------
    The field, and the distance from its centre to the outermost voxels [mm at the reference size].
    """
    both = torch.cat([cube, valid])[None].float()
    crop = CropConfig(side=WORKING_SIDE, voxel_size_mm=FIELD_VOXEL_MM)
    size = torch.tensor([size_factor(brain_volume_ml)])
    shift = torch.zeros(1, 3) if offset_mm is None else offset_mm[None].float()
    crops = sample_crops(both, torch.eye(3)[None], size, shift, crop)
    image, known = scaled_by_brain(crops[:, :1], crops[:, 1:]), crops[:, 1:]
    contrast = local_contrast(image, known, window=config.contrast_window, floor=config.contrast_floor)
    known = (known > 0.5).to(contrast)
    return torch.cat([contrast * known, known], dim=1)[0], FIELD_VOXEL_MM * (WORKING_SIDE - 1) / 2


def register_head(
    template: HeadTemplate,
    cube: Float[Tensor, "1 x y z"],
    valid: Float[Tensor, "1 x y z"],
    brain_volume_ml: float,
    guesses: Float[Tensor, "guess 3 3"],
    config: RegisterConfig,
) -> Registration:
    """Lay the template over the head at a cube's centre.

    Parameters
    ----------
    template
        In the head's frame.
    cube, valid
        Intensity and field of view about the centre, from :func:`equivox.tasks.pose.rotate.head_cube`.
    brain_volume_ml
        Expected size.
    guesses
        Rotations (world from head) to start from beside the grid; may be empty.
    config
        The search.

    Returns
    -------
    The pose of highest correlation; where it is in doubt, the better of two searches.
    """
    with torch.inference_mode(False):  # the refinement needs gradients, whatever the caller has switched off
        cube, valid, guesses = cube.clone(), valid.clone(), guesses.clone()
        return _register_head(template, cube, valid, brain_volume_ml, guesses, config)


def _register_head(
    template: HeadTemplate, cube: Tensor, valid: Tensor, brain_volume_ml: float, guesses: Tensor, config: RegisterConfig
) -> Registration:
    """One search, and in doubt a second."""
    first = _register_once(template, cube, valid, brain_volume_ml, torch.zeros(3), guesses, config)
    correlation, lead = config.second_look
    if first.correlation >= correlation or first.lead >= lead:
        return first
    volume_ml = brain_volume_ml * math.exp(3 * first.log_size)
    again = torch.cat([guesses.double(), first.rotation[None]])
    second = _register_once(template, cube, valid, volume_ml, first.shift_mm, again, config)
    if second.correlation <= first.correlation:
        return first
    return replace(second, log_size=first.log_size + second.log_size)


def _register_once(
    template: HeadTemplate,
    cube: Tensor,
    valid: Tensor,
    brain_volume_ml: float,
    offset_mm: Tensor,
    guesses: Tensor,
    config: RegisterConfig,
) -> Registration:
    """One search about a point of the cube (``offset_mm`` from its centre) at one expected size."""
    device = template.contrast.device
    field, half_edge_mm = contrast_field(cube, valid, brain_volume_ml, config, offset_mm=offset_mm)
    field = field.to(device)
    search = _Search(template, field, half_edge_mm, config, template.points(), template.points(step=2))
    poses = search.starts(torch.cat([guesses.float().to(device), _grid(config.grid).to(device)]))
    poses, found = search.refine(poses, search.coarse.thinned(2), steps=12)
    poses, found = search.refine(poses.pick(_best_two_ways(poses.rotations, found)), search.coarse, steps=24)
    elsewhere = found[_is_elsewhere(poses.rotations, found)]
    lead = float(found.max() - elsewhere.max()) if len(elsewhere) else float(found.max())
    final, correlation = search.refine(poses.pick(found.argmax()[None]), search.fine, steps=16)
    expected, log_size = size_factor(brain_volume_ml), float(final.log_sizes[0])
    shift_mm = offset_mm.double() + final.shifts_mm[0].double().cpu() * expected
    return Registration(
        final.rotations[0].double().cpu(),
        shift_mm,
        log_size,
        expected * math.exp(log_size),
        float(correlation[0]),
        lead,
    )


def _is_elsewhere(rotations: Tensor, found: Tensor) -> Tensor:
    """Which rotations differ from the best one by more than :data:`ELSEWHERE_DEG`."""
    best = rotations[int(found.argmax())]
    return torch.rad2deg(geodesic_angle(rotations, best.expand_as(rotations))) > ELSEWHERE_DEG


def _best_two_ways(rotations: Tensor, found: Tensor, count: int = 5) -> Tensor:
    """Indices of the best poses and of the best two that point elsewhere, so that the lead is an honest one."""
    elsewhere = torch.where(_is_elsewhere(rotations, found), found, found - 10.0)
    chosen = torch.cat([found.topk(min(count, len(found))).indices, elsewhere.topk(min(2, len(found))).indices])
    return chosen.unique()


@dataclass(frozen=True, slots=True)
class _Poses:
    """Several poses of the template, relative to the cube's centre and the expected size."""

    rotations: Float[Tensor, "pose 3 3"]
    shifts_mm: Float[Tensor, "pose 3"]
    log_sizes: Float[Tensor, "pose"]

    def pick(self, index: Tensor) -> _Poses:
        return _Poses(self.rotations[index], self.shifts_mm[index], self.log_sizes[index])


@dataclass(frozen=True, slots=True)
class _Search:
    """The template over one field."""

    template: HeadTemplate
    field: Float[Tensor, "2 x y z"]
    half_edge_mm: float
    config: RegisterConfig
    fine: TemplatePoints
    coarse: TemplatePoints

    def correlation(self, poses: _Poses, points: TemplatePoints) -> Float[Tensor, "pose"]:
        """Of each pose, looked at in these points of the template."""
        where = (poses.rotations, poses.shifts_mm, poses.log_sizes)
        return self.template(self.field, self.half_edge_mm, *where, points=points)

    def starts(self, rotations: Tensor) -> _Poses:
        """The poses to refine: every rotation at its best size, the best of them at their best shift."""
        config, sizes = self.config, self.config.sizes
        moves = config.shift_mm * torch.cat([torch.zeros(1, 3), torch.eye(3), -torch.eye(3)]).to(rotations)
        with torch.no_grad():
            poses = _Poses(
                rotations.repeat(len(sizes), 1, 1),
                rotations.new_zeros(len(sizes) * len(rotations), 3),
                rotations.new_tensor(sizes).repeat_interleave(len(rotations)),
            )
            poses, found = self._best_per_rotation(poses, len(rotations))
            poses = poses.pick(found.topk(min(config.shifted, len(found))).indices)
            count = len(poses.rotations)
            poses = _Poses(
                poses.rotations.repeat(len(moves), 1, 1),
                moves.repeat_interleave(count, 0),
                poses.log_sizes.repeat(len(moves)),
            )
            poses, found = self._best_per_rotation(poses, count)
        return poses.pick(found.topk(min(config.refined, count)).indices)

    def _best_per_rotation(self, poses: _Poses, count: int) -> tuple[_Poses, Tensor]:
        """Of poses that repeat the same ``count`` rotations, the best of each."""
        parts = torch.arange(len(poses.rotations), device=poses.rotations.device).split(48)
        points = self.coarse.thinned(3)
        found = torch.cat([self.correlation(poses.pick(part), points) for part in parts]).reshape(-1, count)
        best, which = found.max(0)
        return poses.pick(which * count + torch.arange(count, device=which.device)), best

    def refine(self, start: _Poses, points: TemplatePoints, *, steps: int) -> tuple[_Poses, Float[Tensor, "pose"]]:
        """Adam on rotation vector, shift and log size of every pose by itself; the rate falls to a tenth."""
        turn = torch.zeros_like(start.shifts_mm).requires_grad_()
        shift = start.shifts_mm.clone().requires_grad_()
        size = start.log_sizes.clone().requires_grad_()
        rates = (0.06, 2.0, 0.03)
        groups = [{"params": [p], "lr": r} for p, r in zip((turn, shift, size), rates, strict=True)]
        optimiser = torch.optim.Adam(groups)
        with torch.enable_grad():
            for index in range(steps):
                fall = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * index / steps))
                for group, rate in zip(optimiser.param_groups, rates, strict=True):
                    group["lr"] = rate * fall
                poses = _Poses(start.rotations @ roma.rotvec_to_rotmat(turn), shift, size)
                cost = (shift / self.config.shift_scale_mm).square().sum(1) + (size / self.config.size_scale).square()
                loss = (0.01 * cost - self.correlation(poses, points)).sum()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        with torch.no_grad():
            ended = _Poses(start.rotations @ roma.rotvec_to_rotmat(turn), shift.detach(), size.detach())
            return ended, self.correlation(ended, points)


@functools.cache
def _grid(name: str) -> Tensor:
    return rotation_grid(name).matrices.float()
