"""Tiles for training, drawn from micrographs; whole micrographs for validation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor

from equivox.run.seeds import draw_chance, draw_uniform, generator_for
from equivox.tasks.pick.config import PickTraining
from equivox.tasks.pick.data import LabelledMicrograph
from equivox.tasks.pick.targets import FAR
from equivox.tasks.pick.tiles import ScoreGrid


class TrainingTiles:
    """Tiles of training micrographs (:class:`equivox.run.sampling.Samples`).

    A sample holds ``image`` (1, side, side), and for every output of the network ``distance`` to the nearest label and
    ``negative`` to the nearest place known to be empty [particle radii], ``weight`` (0 where nothing is known), and
    ``anywhere``, 1 if the tile was not drawn around a label.

    Parameters
    ----------
    micrographs
        All with the same radius in pixels.
    settings
        Sizes, shares, jitter.
    grid
        Of the network.
    seed
        Of every draw.
    margins_px
        For each micrograph the working pixels at its edge that count for nothing.
    """

    def __init__(
        self,
        micrographs: Sequence[LabelledMicrograph],
        settings: PickTraining,
        grid: ScoreGrid,
        *,
        seed: int,
        margins_px: Sequence[float],
    ) -> None:
        self.micrographs, self.settings, self.grid, self.seed = list(micrographs), settings, grid, seed
        self.margins_px = list(margins_px)
        self.side = (settings.tile_outputs - 1) * grid.stride_px + grid.field_px

    def __len__(self) -> int:
        """Tiles per epoch."""
        return self.settings.tiles_per_epoch

    def sample(self, epoch: int, position: int) -> dict[str, Tensor]:
        """The tile at a position of an epoch: micrographs in turn, a place, a turn, a scale, a contrast, noise."""
        settings = self.settings
        draw = generator_for(self.seed, "tile", epoch, position)
        index = (position + epoch * len(self)) % len(self.micrographs)
        one = self.micrographs[index]
        anywhere = not draw_chance(settings.labelled_tiles, generator=draw) or len(one.labels_px) == 0
        height, width = one.image.shape
        if anywhere:
            center = torch.tensor(
                [draw_uniform(0.0, height - 1.0, generator=draw), draw_uniform(0.0, width - 1.0, generator=draw)]
            )
        else:
            label = one.labels_px[int(torch.randint(len(one.labels_px), (), generator=draw))]
            reach = 0.35 * settings.tile_outputs * self.grid.stride_px
            center = label + reach * (2.0 * torch.rand(2, generator=draw) - 1.0)
        turn = self._turn(draw)
        places = self._places(center, turn)
        image = _sampled(one.image, places, smooth=settings.rotate == "any" or settings.scale_jitter > 0)
        image = image * (1.0 + settings.contrast_jitter * draw_uniform(-1.0, 1.0, generator=draw))
        image = image + settings.noise * torch.randn(image.shape, generator=draw)
        margin, stride = self.grid.margin_px, self.grid.stride_px
        span = slice(margin, self.side - margin, stride)
        outputs = places[span, span]
        edge = max(self.margins_px[index], 0.0)
        inside = ((outputs >= edge) & (outputs <= torch.tensor([height - 1.0, width - 1.0]) - edge)).all(dim=2)
        weight = inside.float()
        if one.keep is not None:
            weight = weight * (_sampled(one.keep, outputs, smooth=False) > 0.5)
        return {
            "image": image[None],
            "distance": _distance(one.labels_px, outputs, settings.radius_px),
            "negative": _distance(one.negatives_px, outputs, settings.radius_px),
            "weight": weight,
            "anywhere": torch.tensor(float(anywhere)),
        }

    def _turn(self, draw: torch.Generator) -> Float[Tensor, "2 2"]:
        """From offsets in the tile to offsets in the micrograph."""
        settings = self.settings
        matrix = torch.eye(2)
        if settings.rotate != "none":
            steps = draw_uniform(0.0, 4.0, generator=draw)
            angle = 0.5 * math.pi * (math.floor(steps) if settings.rotate == "quarter" else steps)
            cosine, sine = round(math.cos(angle), 12), round(math.sin(angle), 12)
            matrix = torch.tensor([[cosine, -sine], [sine, cosine]])
            if draw_chance(0.5, generator=draw):
                matrix = matrix @ torch.diag(torch.tensor([1.0, -1.0]))
        return matrix * math.exp(draw_uniform(-1.0, 1.0, generator=draw) * math.log1p(settings.scale_jitter))

    def _places(self, center: Tensor, turn: Tensor) -> Float[Tensor, "side side 2"]:
        """Position (y, x) in the micrograph of every pixel of the tile; whole pixels where nothing is turned."""
        offsets = torch.arange(self.side, dtype=torch.float32) - (self.side - 1) // 2
        plane = torch.stack(torch.meshgrid(offsets, offsets, indexing="ij"), dim=2)
        return center.round() + plane @ turn.T


class WholeMicrographs:
    """Micrographs as they are, for validation (:class:`equivox.run.sampling.Samples`)."""

    def __init__(self, micrographs: Sequence[LabelledMicrograph], margins_px: Sequence[float]) -> None:
        self.micrographs, self.margins_px = list(micrographs), list(margins_px)

    def __len__(self) -> int:
        """Micrographs."""
        return len(self.micrographs)

    def sample(self, epoch: int, position: int) -> dict[str, Tensor]:
        """One micrograph: its image, labels, mask and margin."""
        one = self.micrographs[position]
        keep = torch.ones_like(one.image) if one.keep is None else one.keep
        return {
            "image": one.image[None],
            "labels": one.labels_px,
            "keep": keep,
            "margin": torch.tensor(self.margins_px[position]),
        }


def _sampled(image: Tensor, places: Tensor, *, smooth: bool) -> Tensor:
    """Image at positions (y, x); 0 beyond its edge, as a network's margin has it."""
    height, width = image.shape
    scale = torch.tensor([2.0 / max(1, width - 1), 2.0 / max(1, height - 1)])
    where = places.flip(2) * scale - 1.0
    mode = "bicubic" if smooth else "nearest"
    return functional.grid_sample(image[None, None], where[None], mode=mode, padding_mode="zeros", align_corners=True)[
        0, 0
    ]


def _distance(points: Tensor, outputs: Tensor, radius_px: float) -> Tensor:
    """Distance of every output from the nearest point, in radii."""
    if len(points) == 0:
        return torch.full(outputs.shape[:2], FAR)
    low, high = outputs.amin(dim=(0, 1)) - 4.0 * radius_px, outputs.amax(dim=(0, 1)) + 4.0 * radius_px
    near = points[((points >= low) & (points <= high)).all(dim=1)]
    if len(near) == 0:
        return torch.full(outputs.shape[:2], FAR)
    apart = torch.cdist(outputs.reshape(-1, 2), near.to(outputs), compute_mode="donot_use_mm_for_euclid_dist")
    return (apart.amin(dim=1) / radius_px).clamp(max=FAR).reshape(outputs.shape[:2])
