"""Views of one scan: turned, degraded, its centre set wrong; made from the file's own grid by one interpolation."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
    """

    volume: Volume
    brain: BrainMask
    voxel_size_mm: float = VOXEL_SIZE_MM

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
        volume = self.volume
        if degradation is not None:
            values = degrade(
                volume.data[0].clamp(0.0, HIGHEST),
                self.brain.inside,
                degradation,
                voxel_size_mm=volume.voxel_size_mm,
                generator=generator or torch.Generator().manual_seed(0),
            )
            volume = replace(volume, data=values[None])
        source = BrainSource(volume, self.brain, voxel_size_mm=self.voxel_size_mm)
        if degradation is not None:
            source.centroid_mm = source.centroid_mm + torch.tensor(degradation.centroid_mm, dtype=torch.float64)
        return source.sample(side=side, turn=turn)
