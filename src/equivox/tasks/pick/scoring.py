"""From a normalised micrograph to candidates: scores tile by tile, maxima, the best rotation of each, suppression."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as functional
from jaxtyping import Float, Int
from torch import Tensor, nn

from equivox.geometry.so3_grids import RotationGrid
from equivox.nn.aggregation import al1_bias
from equivox.tasks.pick.peaks import local_maxima, refine_peaks, suppress
from equivox.tasks.pick.tiles import ScoreGrid, tile_side, tiles

FLOOR = -9.0
"""Maxima below this score (log-odds of the network) are nothing."""
NEAR_DEG = 30.0
"""Rotations so near to the best are one piece of evidence with it; grids of up to 256 have none nearer."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Maxima of a score map, the best first.

    Parameters
    ----------
    yx_px
        Position (y, x) in working pixels.
    score
        Of the network, at the summit.
    rotation
        Index of the best rotation of the network's grid; -1 for a network without rotations.
    confidence
        Share of the evidence that lies on the best rotation and those within 30 degrees of it; NaN without.
    """

    yx_px: Float[Tensor, "peak 2"]
    score: Float[Tensor, " peak"]
    rotation: Int[Tensor, " peak"]
    confidence: Float[Tensor, " peak"]

    def __len__(self) -> int:
        return len(self.score)

    def select(self, chosen: Tensor) -> Candidates:
        """Some of them, by index or mask."""
        return Candidates(self.yx_px[chosen], self.score[chosen], self.rotation[chosen], self.confidence[chosen])


def score_grid(network: nn.Module) -> ScoreGrid:
    """Field and stride of a network of `nets/projected*.py`."""
    anything: Any = network
    return ScoreGrid(int(anything.receptive_field_px), int(anything.step_px))


def values_per_output(network: nn.Module) -> int:
    """Numbers that the widest layer holds for one output: rotations times channels, four-fold before subsampling."""
    anything: Any = network
    features = getattr(anything, "features", None)
    if features is None:
        widest = max((layer.out_channels for layer in network.modules() if isinstance(layer, nn.Conv2d)), default=1)
        return int(widest) * (1 if anything.step_px == 1 else 2)
    blocks = list(features.blocks)
    rotations = len(features.grid)
    widths = [block.conv.channels_out for block in blocks] or [1]
    first = widths[0] * (int(anything.step_px) ** 2 if blocks and blocks[0].blur is not None else 1) if blocks else 1
    return rotations * max(first, *widths)


@torch.inference_mode()
def find_candidates(
    network: nn.Module,
    image: Float[Tensor, "y x"],
    *,
    distance_px: float,
    margin_px: float = 0.0,
    keep: Float[Tensor, "y x"] | None = None,
    floor: float = FLOOR,
    memory_mb: float = 66.0,
    device: str = "cpu",
) -> Candidates:
    """Score a micrograph and take its separate maxima.

    Parameters
    ----------
    network
        Without padding, in evaluation mode.
    image
        Normalised, particles dark.
    distance_px
        No two candidates are nearer.
    margin_px
        Nothing nearer to the edge is kept.
    keep
        0 where nothing is kept.
    floor
        Scores at or below it are no candidates.
    memory_mb
        For the largest map of a tile.
    """
    grid = score_grid(network)
    side = tile_side(values_per_output(network), memory_mb=memory_mb)
    whole = torch.empty(grid.outputs(image.shape[0]), grid.outputs(image.shape[1]))
    places, rotations, confidences = [], [], []
    for tile, inner in tiles(image, grid, side, halo=1):
        score, logits = _scores(network, tile.image.to(device))
        score = score.cpu()
        top, left = tile.rows.start, tile.columns.start
        whole[top + inner[0].start : top + inner[0].stop, left + inner[1].start : left + inner[1].stop] = score[inner]
        own = torch.zeros_like(score, dtype=torch.bool)
        own[inner] = True
        found = torch.nonzero(local_maxima(score, floor=floor) & own)
        rotation, confidence = _best_rotation(network, logits, found)
        places.append(found + torch.tensor([top, left]))
        rotations.append(rotation)
        confidences.append(confidence)
    joined = torch.cat(places)
    position, height = refine_peaks(whole, joined)
    position = position * grid.stride_px
    candidates = Candidates(position, height, torch.cat(rotations), torch.cat(confidences))
    limits = torch.tensor(image.shape, dtype=position.dtype) - 1.0
    allowed = ((position >= margin_px) & (position <= limits - margin_px)).all(dim=1)
    if keep is not None:
        nearest = torch.minimum(position.round().long().clamp_min(0), limits.long())
        allowed &= keep[nearest[:, 0], nearest[:, 1]] > 0.5
    candidates = candidates.select(allowed)
    return candidates.select(suppress(candidates.yx_px, candidates.score, distance=distance_px))


def dense_scores(network: nn.Module, images: Float[Tensor, "batch 1 y x"]) -> Float[Tensor, "batch y_out x_out"]:
    """Aggregated logits at every output, for training."""
    anything: Any = network
    scores: Tensor = anything.score_map(images)[:, 0]
    return scores


def _scores(network: Any, image: Tensor) -> tuple[Tensor, Tensor | None]:
    """Aggregated logits (y, x), and those of every rotation (rotation, y, x) where the network has any."""
    if not hasattr(network, "rotation_logits"):
        return network.score_map(image[None, None])[0, 0], None
    logits = network.rotation_logits(image[None, None])
    return network.aggregate(logits)[0, 0], logits[0, :, 0]


def _best_rotation(network: Any, logits: Tensor | None, places: Tensor) -> tuple[Tensor, Tensor]:
    """Index of the best rotation at each place, and how much of the evidence lies near it."""
    if logits is None or len(places) == 0:
        return torch.full((len(places),), -1, dtype=torch.int64), torch.full((len(places),), math.nan)
    values = logits[:, places[:, 0], places[:, 1]].float().cpu()
    best = values.argmax(dim=0)
    count = network.effective_count or len(values)
    evidence = functional.softplus(values + al1_bias(float(count))) * network.grid.weights.float()[:, None]
    near = neighbours(network.grid)[best].float()
    share = (near * evidence.T).sum(dim=1) / evidence.sum(dim=0).clamp_min(1e-30)
    return best, share.clamp(0.0, 1.0)


_NEIGHBOURS: dict[str, Tensor] = {}


def neighbours(grid: RotationGrid) -> Tensor:
    """Which members lie within :data:`NEAR_DEG` of each (rotation, rotation), themselves included."""
    if grid.name not in _NEIGHBOURS:
        cosine = torch.einsum("rij,sij->rs", grid.matrices, grid.matrices)
        angle = torch.rad2deg(torch.arccos(((cosine - 1.0) / 2.0).clamp(-1.0, 1.0)))
        _NEIGHBOURS[grid.name] = angle <= NEAR_DEG + 1e-6
    return _NEIGHBOURS[grid.name]
