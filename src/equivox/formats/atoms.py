"""All heavy atoms of a structure file, for densities: proteins, nucleic acids and, if asked, ligands."""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import ConfigError, InputError
from equivox.formats.archives import require_file
from equivox.formats.proteins import FARTHEST_ANGSTROM, STRUCTURE_ENDINGS, require_gemmi


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
    path = require_file(path)
    if not path.name.lower().endswith(STRUCTURE_ENDINGS):
        raise InputError(f"{path} is not a structure by its name; give a .pdb, .ent, .cif or .mmcif file (or .gz).")
    gemmi = require_gemmi("reading atomic models")
    structure = _parsed(gemmi, path)
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


def _parsed(gemmi: Any, path: Path) -> Any:
    """Gemmi's structure; InputError with its reason otherwise."""
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path} is truncated or damaged ({error}); copy it again from its source.") from error
    text = data.decode("utf-8", "replace")
    name = path.name.lower().removesuffix(".gz")
    try:
        if name.endswith((".cif", ".mmcif")):
            blocks = [block for block in gemmi.cif.read_string(text) if block.find_values("_atom_site.Cartn_x")]
            structure = gemmi.make_structure_from_block(blocks[0]) if blocks else gemmi.Structure()
        else:
            structure = gemmi.read_pdb_string(text)
    except MemoryError:
        raise
    except Exception as error:  # gemmi speaks through several kinds of exception
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
        reason = re.sub(r"^string:(\d+):\d+\(\d+\)", r"line \1", reason)
        raise InputError(f"{path} cannot be read ({reason}); copy it again from its source.") from error
    if len(structure) == 0 or not math.isfinite(structure[0].count_atom_sites()) or not structure[0].count_atom_sites():
        raise InputError(f"{path} holds no atoms; copy it again from its source.")
    return structure


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
