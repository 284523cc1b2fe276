"""Views of one scan: turned, degraded, its centre set wrong; made from the file's own grid by one interpolation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.formats.nifti import open_scan
from equivox.geometry.space import Volume
from equivox.tasks.encode.data import HIGHEST, PERCENTILE, SIDE, VOXEL_SIZE_MM, Brain, BrainSource
from equivox.tasks.encode.extraction import BrainMask, find_brain
from equivox.tasks.encode.photometric import Degradation, degrade


@dataclass(frozen=True, slots=True)
class ScanViews:
    """A scan kept in memory, from which views are made exactly as :func:`prepare_brain` would make them.

    Parameters
    ----------
    volume
        The scan, intensities about 1 at the 95th percentile of the brain.
    brain
        Which voxels are brain.
    voxel_size_mm
        Of the working grid.

    What does not change between views is made once and kept: what the mask alone decides, the scan as it is ready to be
    sampled, and the sample of the scan as it lies.
    """

    volume: Volume
    brain: BrainMask
    voxel_size_mm: float = VOXEL_SIZE_MM
    _plain: list[BrainSource] = field(default_factory=list, repr=False, compare=False)
    _upright: dict[int, Brain] = field(default_factory=dict, repr=False, compare=False)

    @property
    def nbytes(self) -> int:
        """About how much memory it takes when it is ready, brains as they lie included."""
        ready = sum(one.nbytes for one in self._plain)
        return 5 * self.volume.data.numel() + ready + sum(8 * one.volume.numel() for one in self._upright.values())

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        mask: Path | str | None = None,
        brain_extracted: bool = False,
        voxel_size_mm: float = VOXEL_SIZE_MM,
    ) -> ScanViews:
        """Read a scan.

        Raises
        ------
        InputError
            See :func:`equivox.tasks.encode.data.open_brain`.
        """
        volume = open_scan(path).frame(0)
        brain = find_brain(volume, mask=mask, brain_extracted=brain_extracted)
        inside = volume.data[0][brain.inside].double().sort().values
        high = float(inside[int(PERCENTILE * (len(inside) - 1))]) if len(inside) else 1.0
        return cls(replace(volume, data=(volume.data / max(high, 1e-6)).float()), brain, voxel_size_mm)

    def view(
        self,
        *,
        side: int = SIDE,
        turn: Float[Tensor, "3 3"] | None = None,
        degradation: Degradation | None = None,
        generator: torch.Generator | None = None,
    ) -> Brain:
        """One view.

        Parameters
        ----------
        side
            Voxels of the working grid.
        turn
            Rotation of the content about its centroid.
        degradation
            What is done to the scan before; None for the scan as it is.
        generator
            Of the noise.
        """
        shift_mm = (0.0, 0.0, 0.0) if degradation is None else degradation.centroid_mm
        upright = turn is None and degradation is None
        if upright and side in self._upright:
            return self._upright[side]
        if not self._plain:
            self._plain.append(BrainSource(self.volume, self.brain, voxel_size_mm=self.voxel_size_mm))
        source = self._plain[0]
        if degradation is not None and degradation.touches_intensities:
            values = degrade(
                self.volume.data[0].clamp(0.0, HIGHEST),
                self.brain.inside,
                degradation,
                voxel_size_mm=self.volume.voxel_size_mm,
                generator=generator or torch.Generator().manual_seed(0),
            )
            changed = replace(self.volume, data=values[None])
            source = BrainSource(changed, self.brain, voxel_size_mm=self.voxel_size_mm, frame=source.frame)
        found = source.sample(side=side, turn=turn, shift_mm=shift_mm)
        if upright:
            self._upright[side] = found
        return found
