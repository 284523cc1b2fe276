"""Find the fetal head in a stack: a few candidates, each with centre, brain mask, size and a score.

First the finder looks at the whole field of view at 4 mm and names the places where a brain-sized ball is most
brain-like. Then each place is looked at again in randomly turned crops: a brain is seen from every side, many a
decoy is not. The mean over the crops gives the mask, and what the passes say about it gives the score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import GeometryError
from equivox.geometry.rotations import random_rotations
from equivox.geometry.space import Volume
from equivox.tasks.pose.locate_grid import VOXEL_SIZE_MM, level_at_center, robust_scale, working_grid
from equivox.tasks.pose.locate_shape import MaskShape, measure_mask, score_candidate

CROP_VOXELS = 40
"""Side of the cube around a candidate: 160 mm, the head and what touches it."""
MINIMUM_SCORE = 0.15
"""Candidates below are not heads."""
CLEAR_SCORE = 0.83
"""A candidate from here on is the head, and lesser peaks are not looked at; decoys in 217 other inputs reach 0.80."""
SMALL_BRAIN_VOXELS = 2344
"""150 mL on the working grid."""
REFERENCE_VOLUME_ML = 290.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A place that may be the head.

    Parameters
    ----------
    center_mm
        Centroid of the brain mask, RAS mm.
    score
        In [0, 1]; how much the place looks like a whole brain from every side.
    mask
        Brain, 0 or 1, one channel, on an axis-aligned cube of 4 mm voxels around the candidate.
    mask_volume_ml
        Volume of the mask.
    agreement
        Mean Dice between the turned passes and their mean, in [0, 1].
    certainty, roundness, elongation
        Of the mask, as :class:`equivox.tasks.pose.locate_shape.MaskShape` has them.
    first_look
        Mean brain probability inside the mask of the pass over the whole field of view.
    """

    center_mm: Float[Tensor, "3"]
    score: float
    mask: Volume
    mask_volume_ml: float
    agreement: float = 1.0
    certainty: float = 1.0
    roundness: float = 1.0
    elongation: float = 1.0
    first_look: float = 1.0

    @property
    def size(self) -> float:
        """Linear size relative to a brain of 290 mL."""
        return float((self.mask_volume_ml / REFERENCE_VOLUME_ML) ** (1 / 3))


@dataclass(frozen=True, slots=True)
class Location:
    """What was found in a stack: candidates, best first; none, and the reason in one sentence, if there is no head."""

    candidates: tuple[Candidate, ...]
    reason: str = ""


def locate_head(
    networks: Mapping[str, nn.Module],
    volume: Volume,
    *,
    generator: torch.Generator | None = None,
    candidates: int = 3,
    turns: int = 6,
) -> Location:
    """Find the head in a stack of any orientation and voxel size.

    Parameters
    ----------
    networks
        ``"locate"`` looks at the whole field of view, ``"segment"`` (the same network if absent) at the crops; both
        are called as ``network(image, valid)`` and answer with a logit per voxel (:class:`FinderNet`).
    volume
        The stack; its first channel is used.
    generator
        Draws the turns of the crops; a fixed seed if absent, so that the same stack gives the same answer.
    candidates
        How many places are looked at closely, unless an earlier one is clear.
    turns
        Turned crops per place.
    """
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    grid = working_grid(volume)
    scale = robust_scale(grid.data[0], grid.data[1])
    spread = float(grid.data[0][grid.data[1] > 0.5].std()) if int((grid.data[1] > 0.5).sum()) > 1 else 0.0
    if scale <= 0 or spread < 1e-3 * scale:
        return Location((), "The volume has no contrast: nothing in it can be told from anything else.")
    field = torch.stack([grid.data[0] / scale, grid.data[1]])
    probability = brain_probability(networks["locate"], field)
    found: list[Candidate] = []
    closer = networks.get("segment", networks["locate"])
    for place in find_peaks(probability, count=candidates):
        candidate = _look_closely(closer, field, grid, place, turns=turns, generator=generator)
        if candidate is not None and candidate.score >= MINIMUM_SCORE and not _is_repeat(candidate, found):
            found.append(replace(candidate, first_look=_mean_inside(probability, grid, candidate.mask)))
            if candidate.score >= CLEAR_SCORE:
                break
    found.sort(key=lambda candidate: -candidate.score)
    return Location(tuple(found), "" if found else "Nothing in the volume looks like a fetal brain.")


def locate_in_mask(mask: Volume, *, like: Volume | None = None) -> Location:
    """Take the head from a given brain mask (values above 0.5), its largest component, instead of looking for it.

    Raises
    ------
    GeometryError
        If ``like`` is given and the mask lies on another grid.
    """
    if like is not None and (
        mask.shape != like.shape or not torch.allclose(mask.affine, like.affine, rtol=0, atol=1e-2)
    ):
        raise GeometryError(
            f"mask {mask.name} lies on another grid than {like.name} ({mask.shape} and {like.shape} voxels or another "
            "affine); resample it to the volume's grid first."
        )
    shape = measure_mask(mask.data[0].float(), mask.voxel_size_mm)
    if shape is None:
        return Location((), f"The mask {mask.name} is empty.")
    center = mask.world_from_voxel(shape.center_index)
    kept = Volume(shape.mask[None].to(mask.data.dtype), mask.affine, mask.name)
    round_or_not = {"roundness": shape.roundness, "elongation": shape.elongation}
    return Location((Candidate(center, 1.0, kept, shape.volume_ml, **round_or_not),))


@torch.inference_mode()
def brain_probability(network: nn.Module, field: Float[Tensor, "2 x y z"]) -> Float[Tensor, "x y z"]:
    """Brain probability over the working grid (channels intensity, validity), in one pass."""
    divisor = int(getattr(network, "divisor", 1))
    pad = [amount for side in reversed(field.shape[1:]) for amount in (0, -side % divisor)]
    padded = functional.pad(field, pad)[:, None, None]
    x, y, z = field.shape[1:]
    return network(padded[0], padded[1]).sigmoid()[0, 0, :x, :y, :z] * field[1]


def find_peaks(probability: Float[Tensor, "x y z"], *, count: int, minimum: float = 0.02) -> list[Float[Tensor, "3"]]:
    """Voxel positions where the probability, averaged over a brain-sized ball, is highest; best first."""
    cell = 3
    pooled = functional.avg_pool3d(probability[None, None], cell, ceil_mode=True, count_include_pad=False)
    for _ in range(3):
        pooled = functional.avg_pool3d(functional.pad(pooled, [1] * 6), 3, stride=1)
    highest = functional.max_pool3d(functional.pad(pooled, [3] * 6), 7, stride=1)
    cells = ((pooled == highest) & (pooled > minimum))[0, 0].nonzero()
    order = pooled[0, 0][tuple(cells.T)].argsort(descending=True)[:count]
    return [cells[index].double() * cell + (cell - 1) / 2 for index in order.tolist()]


@torch.inference_mode()
def turned_probability(
    network: nn.Module,
    field: Float[Tensor, "2 x y z"],
    center: Float[Tensor, "3"],
    *,
    turns: int,
    generator: torch.Generator,
) -> Float[Tensor, "turn side side side"]:
    """Brain probability in the cube around ``center`` (voxels), once per random turn, each brought back upright."""
    rotations = random_rotations(turns, generator=generator).float()
    offsets = _cube_offsets(CROP_VOXELS)
    index = center.float() + torch.einsum("xyzj,tij->txyzi", offsets, rotations)
    crops = functional.grid_sample(
        field[None].expand(turns, -1, -1, -1, -1), _as_grid(index, field.shape[1:]), align_corners=True
    )
    probability = network(level_at_center(crops[:, :1], crops[:, 1:]), crops[:, 1:]).sigmoid()
    back = torch.einsum("xyzj,tji->txyzi", offsets, rotations) + (CROP_VOXELS - 1) / 2
    cube = (CROP_VOXELS,) * 3
    upright = functional.grid_sample(probability, _as_grid(back, cube), align_corners=True)[:, 0]
    valid = functional.grid_sample(
        field[None, 1:], _as_grid((center.float() + offsets)[None], field.shape[1:]), align_corners=True
    )[0]
    return upright * (valid > 0.5)


def _look_closely(
    network: nn.Module, field: Tensor, grid: Volume, place: Tensor, *, turns: int, generator: torch.Generator
) -> Candidate | None:
    """Segment around a place; one step of re-centring first, because a peak may sit at the head's edge."""
    passes = turned_probability(network, field, place, turns=min(2, turns), generator=generator)
    shape = _measure(passes.mean(0))
    if shape is None:
        return None
    place = place + shape.center_index - (CROP_VOXELS - 1) / 2
    passes = turned_probability(network, field, place, turns=max(turns - 2, 1), generator=generator)
    mean = passes.mean(0)
    shape = _measure(mean)
    if shape is None:
        return None
    squares = passes.square().sum((1, 2, 3)) + mean.square().sum()
    agreement = float((2 * (passes * mean).sum((1, 2, 3)) / squares.clamp_min(1e-6)).mean())
    affine = grid.affine.clone()
    affine[:3, 3] = grid.world_from_voxel(place - (CROP_VOXELS - 1) / 2)
    mask = Volume(shape.mask[None].float(), affine, grid.name)
    center_mm = mask.world_from_voxel(shape.center_index)
    return Candidate(
        center_mm, score_candidate(shape, agreement), mask, shape.volume_ml, agreement,
        certainty=shape.certainty, roundness=shape.roundness, elongation=shape.elongation,
    )  # fmt: skip


def _mean_inside(probability: Tensor, grid: Volume, mask: Volume) -> float:
    """Mean of the first pass's probability over the mask's voxels that lie on the grid; 0 if none does."""
    points = mask.world_from_voxel((mask.data[0] > 0.5).nonzero().double())
    index = grid.voxel_from_world(points).round().long()
    kept = index[((index >= 0) & (index < torch.tensor(probability.shape))).all(1)]
    return float(probability[tuple(kept.T)].mean()) if len(kept) else 0.0


def _measure(probability: Tensor) -> MaskShape | None:
    """Mask at 0.5, or lower where the network is unsure throughout: an odd head should get a low score, not none."""
    brightest = probability.flatten().topk(SMALL_BRAIN_VOXELS).values.mean()
    threshold = min(0.5, max(0.15, 0.6 * float(brightest)))
    return measure_mask(probability, (VOXEL_SIZE_MM,) * 3, threshold=threshold)


def _is_repeat(candidate: Candidate, others: list[Candidate]) -> bool:
    return any(float((candidate.center_mm - other.center_mm).norm()) < 25 for other in others)


def _cube_offsets(side: int) -> Tensor:
    axis = torch.arange(side, dtype=torch.float32) - (side - 1) / 2
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)


def _as_grid(index: Tensor, shape: tuple[int, ...] | torch.Size) -> Tensor:
    """Voxel indices as grid_sample wants them: in [-1, 1], last axis first."""
    size = torch.tensor(tuple(shape), dtype=index.dtype)
    return (2 * index / (size - 1).clamp_min(1) - 1).flip(-1)
