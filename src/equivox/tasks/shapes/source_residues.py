"""Residues with the atoms about them, in ten splits (data_shapes.md B): which amino acid is missing its side chain?"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import torch
from scipy.spatial import cKDTree

from equivox.formats.environments import AMINO_ACIDS, EnvironmentSet, read_environments
from equivox.geometry.density import PADDING
from equivox.geometry.residues import REACH_SIGMA
from equivox.tasks.shapes.config import DataConfig, InputConfig
from equivox.tasks.shapes.data import Content, Points, Shape
from equivox.tasks.shapes.source_cath import part_of_split


class ResidueSource:
    """Atoms about residues, channels C, N, O, S, centred at the virtual C-beta, own side chain left out.

    Parameters
    ----------
    found
        Chains and residues; those without a frame, or of an unknown amino acid, are left out.
    config
        Grid, and whether boxes are turned into the residue's own frame.
    data
        Fold.
    """

    def __init__(self, found: EnvironmentSet, config: InputConfig, data: DataConfig) -> None:
        self._set = found
        self._local = config.frame == "local"
        self._reach = math.sqrt(3.0) * (config.side * config.spacing / 2 + REACH_SIGMA * config.sigma)
        self.name = found.path.name
        self.classes = tuple(AMINO_ACIDS)
        self._rows = found.usable()
        self._frames, self._origins = found.frames(self._rows)
        self._chains = found.residue_chain[self._rows].tolist()
        parts = [part_of_split(split, data.fold) for split in found.split.tolist()]
        labels = found.labels[self._rows].tolist()
        self.shapes = tuple(
            Shape(id=f"{found.chains[chain]}/{found.residues[row]}", label=label, split=parts[chain])
            for row, chain, label in zip(self._rows.tolist(), self._chains, labels, strict=True)
        )
        bounds = found.atom_offsets[found.residue_offsets].tolist()
        self._bounds = list(pairwise(bounds))
        self.capacity = self._most_atoms()

    @classmethod
    def from_file(cls, path: Path, config: InputConfig, data: DataConfig) -> ResidueSource:
        """Read an archive of environments.

        Raises
        ------
        InputError
            If the file cannot be used.
        """
        return cls(read_environments(path), config, data)

    def content(self, index: int) -> Content:
        """Atoms that can reach into the box in any orientation [Å]."""
        row = int(self._rows[index])
        start, stop = self._bounds[self._chains[index]]
        away = self._set.positions[start:stop] - self._origins[index]
        channel = self._set.channel[start:stop]
        kept = (away.square().sum(dim=1) < self._reach**2) & (channel != PADDING)
        own = slice(int(self._set.atom_offsets[row]) - start, int(self._set.atom_offsets[row + 1]) - start)
        kept[own] &= self._set.backbone[start:stop][own]
        positions = away[kept]
        return Points(positions @ self._frames[index].mT if self._local else positions, channel[kept])

    def _most_atoms(self) -> int:
        """The most atoms about any residue, its own included."""
        most = 1
        chains = torch.tensor(self._chains)
        for chain, (start, stop) in enumerate(self._bounds):
            origins = self._origins[chains == chain]
            if len(origins):
                tree = cKDTree(self._set.positions[start:stop].numpy())
                most = max(most, int(tree.query_ball_point(origins.numpy(), self._reach, return_length=True).max()))
        return most
