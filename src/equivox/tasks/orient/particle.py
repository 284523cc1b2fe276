"""A particle to simulate pictures of: from a structure (PDB, mmCIF) or from a density map (MRC)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from equivox.errors import InputError
from equivox.formats.mrc import is_mrc_name, read_mrc
from equivox.formats.proteins import ProteinChain, read_structure
from equivox.formats.structure_files import STRUCTURE_ENDINGS
from equivox.simulate.point_particle import PointParticle

ELECTRONS = {"H": 1, "C": 6, "N": 7, "O": 8, "P": 15, "S": 16, "SE": 34}
RESIDUE_SIGMA_ANGSTROM = 3.0
"""Width of a residue drawn as one Gaussian."""
MOST_POINTS = 4000
"""A map of more voxels is binned until it has fewer."""
MASS_KEPT = 0.98
"""Share of a map's positive density that its points hold."""


@dataclass(frozen=True, slots=True)
class LoadedParticle:
    """A particle, where it came from, and what had to be assumed."""

    points: PointParticle
    source: str
    warnings: tuple[str, ...] = ()


def is_particle_source(path: Path | str) -> bool:
    """Whether a name is that of a structure or a map, from which pictures are simulated."""
    name = Path(path).name.lower()
    return name.endswith(STRUCTURE_ENDINGS) or (is_mrc_name(path) and ".mrcs" not in name)


def load_particle(path: Path | str, *, chains: str = "", sigma_angstrom: float | None = None) -> LoadedParticle:
    """Read a structure as one Gaussian per residue, or a map as one per voxel.

    Parameters
    ----------
    path
        ``.pdb``, ``.cif`` (also ``.gz``), or a map ``.mrc``.
    chains
        Of a structure: names without blanks between (``"AB"``) or with commas; empty: all. The centre of weight of what
        is taken becomes the centre.
    sigma_angstrom
        Width of the Gaussians; by default 3 Å for residues and 0.6 voxels of a map.

    Raises
    ------
    InputError
        If the file cannot be used.
    """
    if is_mrc_name(path):
        return _from_map(Path(path), sigma_angstrom)
    structure = read_structure(path)
    known = {chain.name for chain in structure.chains}
    names = [name for name in (chains.split(",") if "," in chains or chains in known else list(chains)) if name]
    taken = [structure.chain(name) for name in names] if names else list(structure.chains)
    parts = [_residues(chain) for chain in taken]
    positions, weights = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
    center = (positions * weights[:, None]).sum(0) / weights.sum()
    points = PointParticle((positions - center).float(), weights.float(), sigma_angstrom or RESIDUE_SIGMA_ANGSTROM)
    return LoadedParticle(points, f"{Path(path).name}, chains {', '.join(c.name for c in taken)}", structure.warnings)


def _residues(chain: ProteinChain) -> tuple[Tensor, Tensor]:
    """Centre of weight and electrons of every residue."""
    electrons = torch.tensor([ELECTRONS.get(element.upper(), 7) for element in chain.elements], dtype=torch.float64)
    count = len(chain.sequence)
    total = torch.zeros(count, dtype=torch.float64).index_add_(0, chain.residue, electrons)
    moment = torch.zeros(count, 3, dtype=torch.float64).index_add_(
        0, chain.residue, chain.positions.double() * electrons[:, None]
    )
    filled = total > 0
    return moment[filled] / total[filled, None], total[filled]


def _from_map(path: Path, sigma_angstrom: float | None) -> LoadedParticle:
    """The voxels that hold nearly all of a map's density; voxel ``n // 2`` of each axis is the centre."""
    image = read_mrc(path)
    if image.kind != "volume" or image.data.ndim != 3:
        raise InputError(f"{path} holds a {image.kind}, no volume; give a density map or a structure.")
    voxel = image.pixel_size_angstrom
    if voxel is None:
        raise InputError(f"{path} does not say its voxel size; write it into the header before training.")
    density = torch.from_numpy(np.array(image.data, dtype=np.float32)).clamp_min(0.0)
    if not float(density.max()) > 0:
        raise InputError(f"{path} has no density above 0; give a map in which the particle is positive.")
    axes = [(torch.arange(n) - n // 2).float() * voxel for n in density.shape]
    while True:
        ordered = density.flatten().sort(descending=True).values
        kept = int((ordered.cumsum(0) < MASS_KEPT * ordered.sum()).sum()) + 1
        if kept <= MOST_POINTS or min(density.shape) < 4:
            break
        density, axes, voxel = _binned(density), [_pairs(axis) for axis in axes], 2 * voxel
    places = torch.nonzero(density >= ordered[kept - 1])
    z, y, x = (axis[places[:, column]] for column, axis in enumerate(axes))
    positions = torch.stack([x, y, z], dim=1)
    weights = density[places[:, 0], places[:, 1], places[:, 2]]
    points = PointParticle(positions, weights, sigma_angstrom or 0.6 * voxel)
    return LoadedParticle(points, f"{path.name}, {len(weights)} points", image.warnings)


def _binned(density: Tensor) -> Tensor:
    even = [n - n % 2 for n in density.shape]
    return torch.nn.functional.avg_pool3d(density[None, None, : even[0], : even[1], : even[2]], 2)[0, 0]


def _pairs(axis: Tensor) -> Tensor:
    return axis[: len(axis) - len(axis) % 2].reshape(-1, 2).mean(1)
