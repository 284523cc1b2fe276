"""Amino-acid environments: all heavy atoms of protein chains, residue by residue, ready for boxes about each of them.

Channels of an atom by element: C, N, O, S in this order (selenium counts as sulphur); other elements have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from equivox.errors import InputError
from equivox.formats.archives import (
    Array,
    read_arrays,
    require_file,
    require_indices,
    require_length,
    require_offsets,
)
from equivox.formats.proteins import Structure
from equivox.geometry.density import PADDING
from equivox.geometry.residues import box_atoms, residue_frames

ELEMENTS = ("C", "N", "O", "S")
AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
BACKBONE = ("N", "CA", "C", "O")
HUNDREDTHS = 0.01
REQUIRED = {"chain": 1, "split": 1, "res_offset": 1, "atom_offset": 1, "aa": 1, "resnum": 1, "icode": 1, "xyz": 2,
            "atom_name": 1, "atom_names": 1, "atom_elements": 1, "aa_letters": 0}  # fmt: skip
SMALLEST_TRIANGLE = 1e-3
"""Length of (N - CA) x (C - CA) [Å²] below which a backbone gives no frame."""


@dataclass(frozen=True, slots=True)
class EnvironmentSet:
    """Chains, their residues and heavy atoms in ragged layout [Å].

    Chain c owns residues ``residue_offsets[c]:residue_offsets[c + 1]``, residue r owns atoms
    ``atom_offsets[r]:atom_offsets[r + 1]``. ``labels`` indexes ``AMINO_ACIDS``, -1 for an unknown one;
    ``backbone_atoms`` holds the atoms N, CA and C of every residue, -1 where missing; ``split`` is per chain.
    """

    path: Path
    chains: tuple[str, ...]
    split: Int[Tensor, " chain"]
    residue_offsets: Int[Tensor, " residue_bound"]
    atom_offsets: Int[Tensor, " atom_bound"]
    labels: Int[Tensor, " residue"]
    residues: tuple[str, ...]
    positions: Float[Tensor, "atom 3"]
    channel: Int[Tensor, " atom"]
    backbone: Bool[Tensor, " atom"]
    backbone_atoms: Int[Tensor, "residue 3"]

    def __len__(self) -> int:
        """How many residues."""
        return len(self.residues)

    @property
    def residue_chain(self) -> Int[Tensor, " residue"]:
        """Index of the chain of every residue."""
        sizes = self.residue_offsets[1:] - self.residue_offsets[:-1]
        return torch.repeat_interleave(torch.arange(len(self.chains)), sizes)

    def usable(self) -> Int[Tensor, " usable"]:
        """Residues that can be asked about: a known amino acid with a frame (N, CA and C, not on one line)."""
        whole = (self.backbone_atoms >= 0).all(dim=1)
        n, ca, c = self.positions[self.backbone_atoms.clamp_min(0)].double().unbind(dim=1)
        flat = torch.linalg.cross(n - ca, c - ca).norm(dim=1) < SMALLEST_TRIANGLE
        return torch.nonzero(whole & ~flat & (self.labels >= 0))[:, 0]

    def frames(self, rows: Int[Tensor, " row"]) -> tuple[Float[Tensor, "row 3 3"], Float[Tensor, "row 3"]]:
        """Frame and origin of residues (see :func:`equivox.geometry.residues.residue_frames`)."""
        n, ca, c = self.positions[self.backbone_atoms[rows]].unbind(dim=1)
        return residue_frames(n, ca, c)

    def boxes(
        self,
        rows: Int[Tensor, " row"],
        *,
        rotation: Float[Tensor, "row 3 3"] | None,
        side: int = 20,
        spacing: float = 1.0,
        sigma: float = 0.6,
    ) -> tuple[Float[Tensor, "row point 3"], Int[Tensor, "row point"]]:
        """Points for :func:`equivox.geometry.density.gaussian_density` about residues, and their channels.

        ``rotation`` is local from laboratory: the frames for boxes in the residue's own frame, a random rotation for
        augmentation, None to leave them as they lie. Everything happens on the device of ``positions``.
        """
        rows = rows.to(self.positions.device)
        _, origin = self.frames(rows)
        chain = self.residue_chain.to(rows.device)[rows]
        bounds = torch.stack([self.residue_offsets[chain], self.residue_offsets[chain + 1]], dim=1)
        return box_atoms(
            self.positions, self.channel, self.backbone,
            own=torch.stack([self.atom_offsets[rows], self.atom_offsets[rows + 1]], dim=1),
            chain=self.atom_offsets[bounds], origin=origin, rotation=rotation, side=side, spacing=spacing, sigma=sigma,
        )  # fmt: skip

    def to(self, device: torch.device | str) -> EnvironmentSet:
        """The same set with all its numbers on a device."""
        moved: dict[str, Any] = {}
        for name in self.__slots__:
            value = getattr(self, name)
            moved[name] = value.to(device) if isinstance(value, Tensor) else value
        return EnvironmentSet(**moved)


def read_environments(path: Path | str) -> EnvironmentSet:
    """Read the archive of residue environments (``environments.npz``).

    Raises
    ------
    InputError
        If the file is missing, broken or another kind of archive, or its parts contradict each other.
    """
    path = require_file(path)
    arrays = read_arrays(path, REQUIRED, what="a set of residue environments")
    chains, residues, atoms = len(arrays["chain"]), len(arrays["aa"]), len(arrays["xyz"])
    if not chains or not residues or arrays["xyz"].shape[1] != 3:
        raise InputError(f"{path} holds {chains} chains, {residues} residues and atoms {arrays['xyz'].shape}.")
    require_length(path, {"split": len(arrays["split"])}, count=chains, of="chains")
    lengths = {name: len(arrays[name]) for name in ("resnum", "icode")}
    require_length(path, lengths, count=residues, of="residues")
    require_length(path, {"atom_name": len(arrays["atom_name"])}, count=atoms, of="atoms")
    require_length(
        path, {"atom_elements": len(arrays["atom_elements"])}, count=len(arrays["atom_names"]), of="atom_names"
    )
    require_offsets(path, "res_offset", arrays["res_offset"], count=chains, total=residues, of="aa")
    require_offsets(path, "atom_offset", arrays["atom_offset"], count=residues, total=atoms, of="xyz")
    require_indices(path, "aa", arrays["aa"], below=len(AMINO_ACIDS), of="the list of amino acids")
    require_indices(path, "atom_name", arrays["atom_name"], below=len(arrays["atom_names"]), of="atom_names")
    require_indices(path, "split", arrays["split"], below=10, of="the list of splits")
    if str(arrays["aa_letters"]) != AMINO_ACIDS:
        raise InputError(f"{path} orders the amino acids as {str(arrays['aa_letters'])!r}; {AMINO_ACIDS} is needed.")
    names = np.array([_text(name) for name in arrays["atom_names"]])[arrays["atom_name"]]
    elements = np.array([_text(name) for name in arrays["atom_elements"]])[arrays["atom_name"]]
    labels = [f"{number}{_text(code)}" for number, code in zip(arrays["resnum"].tolist(), arrays["icode"], strict=True)]
    return _assemble(
        path, [_text(name) for name in arrays["chain"]], arrays["split"], arrays["res_offset"],
        arrays["atom_offset"], arrays["aa"].astype(np.int64), labels,
        arrays["xyz"].astype(np.float64) * HUNDREDTHS, names, elements,
    )  # fmt: skip


def environments_of(structure: Structure) -> EnvironmentSet:
    """Environments of all residues of a structure that was read; every chain is alone, as in the archive.

    Raises
    ------
    InputError
        If no residue has the atoms N, CA and C.
    """
    chains = structure.chains
    per_chain = [torch.bincount(chain.residue, minlength=len(chain.sequence)) for chain in chains]
    letters = "".join(chain.sequence for chain in chains)
    names = [f"{number}{code}" for chain in chains
             for number, code in zip(chain.numbers, chain.insertion_codes, strict=True)]  # fmt: skip
    found = _assemble(
        structure.path,
        [chain.name for chain in chains],
        np.zeros(len(chains), dtype=np.int64),
        np.cumsum([0, *(len(chain.sequence) for chain in chains)]),
        np.cumsum([0, *torch.cat(per_chain).tolist()]),
        np.array([AMINO_ACIDS.find(letter) for letter in letters], dtype=np.int64),
        names,
        torch.cat([chain.positions for chain in chains]).numpy(),
        np.array([name for chain in chains for name in chain.atom_names]),
        np.array([element for chain in chains for element in chain.elements]),
    )
    if not len(found.usable()):
        raise InputError(
            f"{structure.path} has no residue with the atoms N, CA and C; environments need a structure with all atoms."
        )
    return found


def _assemble(
    path: Path, chains: Sequence[str], split: Array, residue_offsets: Array, atom_offsets: Array, labels: Array,
    residues: Sequence[str], positions: Array, names: Array, elements: Array,
) -> EnvironmentSet:  # fmt: skip
    elements = np.where(elements == "SE", "S", elements)
    channel = np.full(len(names), PADDING, dtype=np.int64)
    for index, element in enumerate(ELEMENTS):
        channel[elements == element] = index
    owner = np.repeat(np.arange(len(residues)), np.diff(atom_offsets))
    backbone_atoms = np.full((len(residues), 3), -1, dtype=np.int64)
    for column, name in enumerate(("N", "CA", "C")):
        rows = np.flatnonzero((names == name) & (channel != PADDING))
        backbone_atoms[owner[rows], column] = rows
    return EnvironmentSet(
        path, tuple(chains), torch.from_numpy(split.astype(np.int64)),
        torch.from_numpy(residue_offsets.astype(np.int64)), torch.from_numpy(atom_offsets.astype(np.int64)),
        torch.from_numpy(labels), tuple(residues), torch.from_numpy(positions).float(), torch.from_numpy(channel),
        torch.from_numpy(np.isin(names, BACKBONE)), torch.from_numpy(backbone_atoms),
    )  # fmt: skip


def _text(name: Any) -> str:
    """A name that numpy holds as bytes or as text."""
    return name.decode("ascii", "replace").strip() if isinstance(name, bytes) else str(name).strip()
