"""Training crops for the finder: turned, scaled, with heads pasted in and cut out, and with random contrast."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as functional
from locate_data import Stack
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from equivox.geometry.rotations import random_rotations
from equivox.tasks.pose.locate_grid import VOXEL_SIZE_MM, robust_scale

IMAGE, VALID, MASK, HEAD = range(4)


@dataclass
class Source:
    """A stack ready to be cut: image (bright level 1), validity, brain, soft head (8-16 mm around the brain)."""

    stack: Stack
    channels: Tensor
    brain_level: float
    decoys: list[Tensor] = field(default_factory=list)

    @classmethod
    def of(cls, stack: Stack) -> Source:
        """Prepare one stack."""
        image = stack.image / robust_scale(stack.image, stack.valid)
        outside = torch.from_numpy(distance_transform_edt((stack.mask < 0.5).numpy())).float() * VOXEL_SIZE_MM
        head = ((16 - outside) / 8).clamp(0, 1)
        level = float(image[stack.mask > 0.5].median())
        return cls(stack, torch.stack([image, stack.valid, stack.mask, head]), level)


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    """One number, uniform."""
    return low + (high - low) * float(torch.rand((), generator=generator))


def normal(generator: torch.Generator) -> float:
    """One standard normal number."""
    return float(torch.randn((), generator=generator))


def cut(source: Source, center: Tensor, linear: Tensor, side: int) -> Tensor:
    """Sample a cube of ``side`` voxels around ``center`` (voxels); ``linear`` maps crop offsets to stack offsets."""
    axis = torch.arange(side, dtype=torch.float32) - (side - 1) / 2
    offsets = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    index = offsets @ linear.float().mT + center.float()
    size = torch.tensor(source.channels.shape[1:], dtype=torch.float32)
    grid = (2 * index / (size - 1) - 1).flip(-1)[None]
    return functional.grid_sample(source.channels[None], grid, padding_mode="zeros", align_corners=True)[0]


def random_linear(generator: torch.Generator, *, scale_sd: float) -> Tensor:
    """Uniform rotation, mirrored half of the time, with a random size and a slight stretch along each axis."""
    rotation = random_rotations(1, generator=generator)[0].float()
    if uniform(0, 1, generator) < 0.5:
        rotation = -rotation
    stretch = torch.exp(0.04 * torch.randn(3, generator=generator))
    size = math.exp(max(-0.35, min(0.35, scale_sd * normal(generator))))
    return rotation @ torch.diag(stretch) * size


class Sampler:
    """Draws crops from the training stacks of one fold."""

    def __init__(
        self,
        sources: list[Source],
        *,
        side: int,
        seed: int,
        head_share: float,
        paste_share: float = 0.4,
        scale_sd: float = 0.15,
        reach: float = 0.3,
        coarse_share: float = 0.0,
        simulated: list[Source] | None = None,
        simulated_share: float = 0.0,
    ) -> None:
        self.sources = sources
        self.simulated = simulated or []
        self.simulated_share = simulated_share if self.simulated else 0.0
        self.coarse_share = coarse_share
        self.side = side
        self.head_share = head_share
        self.reach = reach
        self.paste_share = paste_share
        self.scale_sd = scale_sd
        self.generator = torch.Generator().manual_seed(seed)
        counts = {s.stack.fetus: 0 for s in sources}
        for s in sources:
            counts[s.stack.fetus] += 1
        self.weights = torch.tensor([counts[s.stack.fetus] ** -0.5 for s in sources])

    def draw(self) -> Source:
        """One stack, simulated or real; stacks of a fetus with many runs come less often."""
        if self.simulated and uniform(0, 1, self.generator) < self.simulated_share:
            return self.simulated[int(torch.randint(len(self.simulated), (), generator=self.generator))]
        return self.sources[int(torch.multinomial(self.weights, 1, generator=self.generator))]

    def batch(self, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images, validity, brain labels, and weights of the voxels in the loss: each (count, 1, side, side, side)."""
        samples = [self.sample() for _ in range(count)]
        image, valid, mask, weight = (torch.stack(part)[:, None] for part in zip(*samples, strict=True))
        return image, valid, mask, weight

    def sample(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One crop."""
        g = self.generator
        source = self.draw()
        linear = random_linear(g, scale_sd=self.scale_sd)
        crop = cut(source, self._center(source, linear), linear, self.side)
        image, valid, mask, weight = crop[IMAGE], crop[VALID], crop[MASK], crop[VALID].clone()
        choice = uniform(0, 1, g)
        if choice < self.paste_share:
            image, valid, mask, weight = self._paste(image, valid, mask, crop[HEAD], weight)
        elif choice < self.paste_share + 0.12:
            image, mask = self._remove(image, valid, mask, crop[HEAD])
        image, valid = self._contrast(image, valid)
        if self.coarse_share and uniform(0, 1, self.generator) < 0.3:
            image, valid = (
                image * valid,
                torch.ones_like(valid),
            )  # a scan that was resampled: zeros beyond what was seen
        return image * valid, valid, mask * valid, (weight * valid > 0.5).float()

    def _center(self, source: Source, linear: Tensor) -> Tensor:
        g = self.generator
        if uniform(0, 1, g) < self.head_share:
            offset = (torch.rand(3, generator=g) * 2 - 1) * self.side * self.reach
            return source.stack.center_index.float() + linear @ offset
        if source.decoys and uniform(0, 1, g) < 0.6:
            decoy = source.decoys[int(torch.randint(len(source.decoys), (), generator=g))]
            return decoy + linear @ ((torch.rand(3, generator=g) * 2 - 1) * self.side * 0.3)
        valid = source.channels[VALID]
        for _ in range(20):
            index = torch.stack([torch.randint(n, (), generator=g) for n in valid.shape])
            if valid[tuple(index)] > 0.5:
                break
        return index.float()

    def _paste(
        self, image: Tensor, valid: Tensor, mask: Tensor, head: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Put another stack's head at a random place; where a head is half hidden, the loss looks away."""
        g = self.generator
        other = self.draw()
        linear = random_linear(g, scale_sd=self.scale_sd)
        offset = (torch.rand(3, generator=g) * 2 - 1) * self.side * 0.35
        pasted = cut(other, other.stack.center_index.float() - linear @ offset, linear, self.side)
        alpha = pasted[HEAD] * pasted[VALID]
        background = float(image[valid > 0.5].median()) if bool((valid > 0.5).any()) else 0.3
        level = math.exp(0.35 * normal(g)) * (1.0 if uniform(0, 1, g) < 0.5 else max(background, 0.2) * 2)
        hidden = float((mask * alpha).sum())
        if hidden > 0.02 * float(mask.sum()) > 0:
            weight = weight * (1 - head * (1 - alpha))
        image = image * (1 - alpha) + pasted[IMAGE] / other.brain_level * level * alpha
        valid = torch.maximum(valid, alpha)
        weight = torch.maximum(weight, (alpha > 0.5).float())
        return image, valid, mask * (1 - alpha) + pasted[MASK] * alpha, weight

    def _remove(self, image: Tensor, valid: Tensor, mask: Tensor, head: Tensor) -> tuple[Tensor, Tensor]:
        """Fill the head with tissue from elsewhere: the surroundings alone must not be taken for a head."""
        g = self.generator
        other = self.draw()
        linear = random_linear(g, scale_sd=self.scale_sd)
        direction = functional.normalize(torch.randn(3, generator=g), dim=0)
        away = other.stack.center_index.float() + direction * uniform(28, 40, g)
        filling = cut(other, away, linear, self.side)
        share = head * (1 - filling[HEAD]) * filling[VALID]
        rest = head * (1 - share)
        level = float(image[valid > 0.5].median()) if bool((valid > 0.5).any()) else 0.3
        image = image * (1 - share - rest).clamp_min(0) + filling[IMAGE] * share + level * rest
        return image, torch.zeros_like(mask)

    def _coarse(self, image: Tensor) -> Tensor:
        """As a navigator of 5 to 8 mm shows it: averaged into larger voxels and interpolated back."""
        side = max(round(self.side * 4.0 / uniform(5.0, 8.0, self.generator)), 8)
        less = functional.interpolate(image[None, None], size=(side,) * 3, mode="area")
        return functional.interpolate(less, size=(self.side,) * 3, mode="trilinear", align_corners=False)[0, 0]

    def _contrast(self, image: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Gain, shading, gamma, blur, noise, slices of unequal gain, and sometimes a cut field of view."""
        g = self.generator
        side = self.side
        axis = torch.linspace(-1, 1, side)
        if uniform(0, 1, g) < 0.8:
            coarse = torch.randn(1, 1, 4, 4, 4, generator=g) * uniform(0, 0.45, g)
            image = (
                image
                * functional.interpolate(coarse, size=(side,) * 3, mode="trilinear", align_corners=True)[0, 0].exp()
            )
        if uniform(0, 1, g) < 0.35:
            width = uniform(0.2, 0.8, g)
            mix = functional.avg_pool3d(image[None, None], 3, stride=1, padding=1)[0, 0]
            image = image + (mix - image) * width
        if self.coarse_share and uniform(0, 1, g) < self.coarse_share:
            image = self._coarse(image)
        gains = [torch.exp(uniform(0, 0.1, g) * torch.randn(side, generator=g)) for _ in range(1)]
        shape = [1, 1, 1]
        along = int(torch.randint(3, (), generator=g))
        shape[along] = side
        image = image * gains[0].reshape(shape)
        image = image * math.exp(0.3 * normal(g))
        image = image + uniform(0, 0.12, g) * torch.randn(image.shape, generator=g)
        gamma = math.exp(0.3 * normal(g))
        image = image.clamp_min(0).pow(gamma)
        if uniform(0, 1, g) < 0.2:
            direction = functional.normalize(torch.randn(3, generator=g), dim=0)
            x, y, z = direction.tolist()
            plane = x * axis[:, None, None] + y * axis[None, :, None] + z * axis[None, None, :]
            valid = valid * (plane < uniform(0.1, 0.9, g)).float()
        return image, valid
