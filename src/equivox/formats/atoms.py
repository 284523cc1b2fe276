"""All heavy atoms of a structure file, for densities: proteins, nucleic acids and, if asked, ligands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import ConfigError, InputError
from equivox.formats.proteins import FARTHEST_ANGSTROM
from equivox.formats.structure_files import parse_structure, require_gemmi, require_structure_file, unpacked


@dataclass(frozen=True, slots=True)
class Atoms:
    """Atoms with their atomic numbers and B factors, positions as in the file [Å]."""

    path: Path
    positions_angstrom: Float[Tensor, "atom 3"]
    electrons: Float[Tensor, "atom"]
    b_factors: Float[Tensor, "atom"]
    chains: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    def centred(self) -> Float[Tensor, "atom 3"]:
        """Positions about the centre of the electrons."""
        center = (self.positions_angstrom * self.electrons[:, None]).sum(0) / self.electrons.sum()
        return self.positions_angstrom - center


def read_atoms(
    path: Path | str, *, chains: Sequence[str] = (), ligands: bool = False, assembly: str | None = None
) -> Atoms:
    """Read the heavy atoms of the first model of a PDB or mmCIF file (also ``.gz``).

    Waters and hydrogens are left out; of alternate locations the first is taken; occupancies are not looked at.

    Parameters
    ----------
    path
        ``.pdb``, ``.ent``, ``.cif``, ``.mmcif``.
    chains
        Author names of the chains to take; empty takes all.
    ligands
        Whether atoms that belong to no polymer are taken too.
    assembly
        Name of the biological assembly to build (usually "1"); None takes the atoms as they stand.

    Raises
    ------
    InputError
        If the file cannot be read, holds no such atoms, chain or assembly, or a position is no finite number.
    MissingExtraError
        If gemmi is not installed.
    """
    path = require_structure_file(path)
    gemmi = require_gemmi("reading atomic models")
    structure = parse_structure(gemmi, path, unpacked(path).decode("utf-8", "replace"))
    warnings = [f"{path} holds {len(structure)} models; the first is used."] if len(structure) > 1 else []
    structure.setup_entities()
    if assembly is not None:
        structure = _built(gemmi, path, structure, assembly)
    structure.remove_hydrogens()
    structure.remove_alternative_conformations()
    structure.remove_waters()
    if not ligands:
        structure.remove_ligands_and_waters()
    model = structure[0] if len(structure) else []
    names = [chain.name for chain in model]
    missing = [name for name in chains if name not in names]
    if missing:
        raise InputError(f"{path} has the chains {', '.join(names)}; {missing[0]!r} is none of them.")
    positions, electrons, factors, taken = [], [], [], []
    for chain in model:
        if chains and chain.name not in chains:
            continue
        taken.append(chain.name)
        for residue in chain:
            for atom in residue:
                positions.append([atom.pos.x, atom.pos.y, atom.pos.z])
                electrons.append(float(atom.element.atomic_number))
                factors.append(float(atom.b_iso))
    if not positions:
        raise InputError(f"{path} holds no heavy atoms of a protein or nucleic acid; check the file.")
    placed = torch.tensor(positions, dtype=torch.float64)
    if not bool((placed.isfinite() & (placed.abs() < FARTHEST_ANGSTROM)).all()):
        raise InputError(f"{path} holds an atom at no finite position within {FARTHEST_ANGSTROM:g} Å; repair it.")
    unknown = sum(number == 0 for number in electrons)
    if unknown:
        warnings.append(f"{path}: {unknown} atoms of no known element count as carbon.")
        electrons = [number or 6.0 for number in electrons]
    return Atoms(
        path, placed, torch.tensor(electrons, dtype=torch.float64), torch.tensor(factors, dtype=torch.float64),
        tuple(dict.fromkeys(taken)), tuple(warnings),
    )  # fmt: skip


def _built(gemmi: Any, path: Path, structure: Any, assembly: str) -> Any:
    """The structure with a biological assembly in place of its first model."""
    found = structure.find_assembly(assembly) if hasattr(structure, "find_assembly") else None
    if found is None:
        found = next((one for one in structure.assemblies if one.name == assembly), None)
    if found is None:
        names = ", ".join(one.name for one in structure.assemblies) or "none"
        raise ConfigError(f"{path} describes the assemblies {names}; {assembly!r} is none of them.")
    structure.transform_to_assembly(assembly, gemmi.HowToNameCopiedChain.AddNumber)
    return structure
