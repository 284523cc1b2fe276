"""Protein structures from PDB and mmCIF files, under one rule set for everything that such files leave open.

The rules: the first model; the first mmCIF block that has atoms; author names and numbers; residues that are amino
acids by their name (selenomethionine counts as methionine) or that stand in a chain as ATOM records with a C-alpha;
of alternate locations the one with the highest occupancy, a tie going to the first; of two residues at one number
likewise. Waters, ligands, ions, nucleic acids and hydrogens are left out. Positions are in ångström, as in the file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from equivox.errors import InputError
from equivox.formats.structure_files import is_cif, parse_structure, require_gemmi, require_structure_file, unpacked

LONGEST_STEP_ANGSTROM = 4.3
"""Consecutive C-alpha atoms farther apart than this have residues missing between them."""
SHORTEST_STEP_ANGSTROM = 2.0
"""Nearer than this they are two copies of one residue."""
FARTHEST_ANGSTROM = 1e4
UNKNOWN = "X"


@dataclass(frozen=True, slots=True)
class Trace:
    """The C-alpha atoms of a chain in order: one letter, author number, insertion code and position [Å] each."""

    sequence: str
    numbers: tuple[int, ...]
    insertion_codes: tuple[str, ...]
    positions: Float[Tensor, "residue 3"]

    @property
    def breaks(self) -> int:
        """How many consecutive C-alpha atoms are too far apart to be neighbours."""
        return int(((self.positions[1:] - self.positions[:-1]).norm(dim=1) > LONGEST_STEP_ANGSTROM).sum())


@dataclass(frozen=True, slots=True)
class ProteinChain:
    """Residues of one chain and their heavy atoms, in the file's order, one location per atom.

    ``residue`` gives for every atom the index of its residue in ``sequence``.
    """

    name: str
    sequence: str
    residue_names: tuple[str, ...]
    numbers: tuple[int, ...]
    insertion_codes: tuple[str, ...]
    positions: Float[Tensor, "atom 3"]
    atom_names: tuple[str, ...]
    elements: tuple[str, ...]
    residue: Int[Tensor, " atom"]

    def trace(self) -> Trace:
        """The residues that have a C-alpha."""
        found = [
            (int(r), i)
            for i, (r, name, element) in enumerate(
                zip(self.residue.tolist(), self.atom_names, self.elements, strict=True)
            )
            if name == "CA" and element == "C"
        ]
        rows = [r for r, _ in found]
        return Trace(
            "".join(self.sequence[r] for r in rows),
            tuple(self.numbers[r] for r in rows),
            tuple(self.insertion_codes[r] for r in rows),
            self.positions[[i for _, i in found]] if found else self.positions[:0],
        )


@dataclass(frozen=True, slots=True)
class Structure:
    """A file's protein chains (those with a C-alpha), how many models it has, and what had to be assumed."""

    path: Path
    chains: tuple[ProteinChain, ...]
    models: int
    warnings: tuple[str, ...]

    def chain(self, name: str) -> ProteinChain:
        """A chain by its author name; InputError that lists the names if there is none."""
        for chain in self.chains:
            if chain.name == name:
                return chain
        names = ", ".join(repr(chain.name) for chain in self.chains)
        raise InputError(f"{self.path} has the chains {names}; {name!r} is none of them.")


def read_structure(path: Path | str) -> Structure:
    """Read a PDB (``.pdb``, ``.ent``) or mmCIF (``.cif``, ``.mmcif``) file, plain or ``.gz``.

    Raises
    ------
    InputError
        If the file is missing, empty, truncated or of another format; it has no atom, or no residue with a C-alpha;
        a coordinate is no finite number or stands in the wrong columns, or lies absurdly far away.
    MissingExtraError
        If gemmi is not installed.
    """
    path = require_structure_file(path)
    gemmi = require_gemmi("reading protein structures")
    text = _content(path)
    if not is_cif(path):
        _check_columns(path, text)
    structure = parse_structure(gemmi, path, text)
    structure.setup_entities()
    warnings: list[str] = []
    if len(structure) > 1:
        warnings.append(f"{path} holds {len(structure)} models; the first is used.")
    by_name: dict[str, list[Any]] = {}
    for chain in structure[0]:
        by_name.setdefault(chain.name.strip(), []).extend(chain)
    chains = []
    for name, residues in by_name.items():
        one = _chain(path, name, residues, gemmi, warnings)
        if one is not None:
            chains.append(one)
    if not chains:
        raise InputError(f"{path} holds no amino acid with a C-alpha; give a protein structure.")
    return Structure(path, tuple(chains), len(structure), tuple(warnings))


def _content(path: Path) -> str:
    """The file's text, decompressed."""
    data = unpacked(path)
    if b"\x00" in data:
        raise InputError(f"{path} is not a text file; give PDB or mmCIF as text (or .gz).")
    return data.decode("ascii", "replace").replace("\ufffd", "?")  # one byte, one column; titles alone need more


def _check_columns(path: Path, text: str) -> None:
    """Coordinates of the first model stand in columns 31-38, 39-46 and 47-54, finite, each with its point."""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("ENDMDL"):
            return
        if not line.startswith(("ATOM  ", "HETATM")):
            continue
        fields = [line[30:38], line[38:46], line[46:54]]
        if len(line) < 54:
            raise InputError(f"{path} ends inside the coordinates of line {number}; copy it again from its source.")
        for field in fields:
            try:
                good = math.isfinite(float(field)) and "." in field and "_" not in field
            except ValueError:
                good = False
            if not good:
                raise InputError(
                    f"{path}, line {number}, holds {field!r} where a coordinate belongs (columns 31 to 54); "
                    f"repair the line."
                )


def _chain(path: Path, name: str, residues: list[Any], gemmi: Any, warnings: list[str]) -> ProteinChain | None:
    """Amino acids of a chain with one location per atom; None if no residue has a C-alpha."""
    kept: dict[tuple[int, str], tuple[Any, str]] = {}
    shown = f"chain {name}" if name else "the chain without a name"
    for residue in residues:
        letter = _letter(residue, gemmi)
        if letter is None:
            continue
        if residue.seqid.num is None:
            raise InputError(f"{path}, {shown}: a residue {residue.name} has no number; repair or remove it.")
        key = (int(residue.seqid.num), residue.seqid.icode.strip())
        if key in kept and _occupancy(residue) <= _occupancy(kept[key][0]):
            continue
        kept[key] = (residue, letter)
    positions: list[list[float]] = []
    atom_names, elements, owners = [], [], []
    lacking = 0
    for index, (residue, _) in enumerate(kept.values()):
        best: dict[str, Any] = {}
        for atom in residue:
            held = best.get(atom.name)
            if not atom.is_hydrogen() and (held is None or atom.occ > held.occ):
                best[atom.name] = atom
        lacking += not ("CA" in best and best["CA"].element.name == "C")
        for atom in best.values():
            place = [atom.pos.x, atom.pos.y, atom.pos.z]
            if not all(math.isfinite(value) and abs(value) < FARTHEST_ANGSTROM for value in place):
                raise InputError(
                    f"{path}, {shown}, residue {residue.seqid}, atom {atom.name}, lies at {tuple(place)}; a finite "
                    f"position within {FARTHEST_ANGSTROM:g} Å is needed."
                )
            positions.append(place)
            atom_names.append(atom.name)
            elements.append(atom.element.name.upper())
            owners.append(index)
    if lacking == len(kept):
        return None
    letters = "".join(letter for _, letter in kept.values())
    names = tuple(residue.name for residue, _ in kept.values())
    if lacking:
        warnings.append(f"{path}, {shown}: {_counted(lacking, 'residue')} without a C-alpha left out of the trace.")
    unknown = sorted({name for name, letter in zip(names, letters, strict=True) if letter == UNKNOWN})
    if unknown:
        warnings.append(f"{path}, {shown}: {', '.join(unknown)} is no amino acid that is known; it counts as X.")
    chain = ProteinChain(
        name, letters, names, tuple(number for number, _ in kept), tuple(code for _, code in kept),
        torch.tensor(positions, dtype=torch.float64), tuple(atom_names), tuple(elements),
        torch.tensor(owners, dtype=torch.int64),
    )  # fmt: skip
    trace = chain.trace()
    steps = (trace.positions[1:] - trace.positions[:-1]).norm(dim=1)
    if bool((steps < SHORTEST_STEP_ANGSTROM).any()):
        at = int((steps < SHORTEST_STEP_ANGSTROM).nonzero()[0])
        warnings.append(
            f"{path}, {shown}: residues {trace.numbers[at]} and {trace.numbers[at + 1]} lie {float(steps[at]):.1f} Å "
            f"apart; one may be a copy of the other."
        )
    if trace.breaks:
        warnings.append(f"{path}, {shown}: residues are missing in {_counted(trace.breaks, 'place')}.")
    return chain


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _letter(residue: Any, gemmi: Any) -> str | None:
    """One-letter code of an amino acid that belongs to a chain, X for an unknown one, None for anything else."""
    free = residue.het_flag == "H" and residue.entity_type in (gemmi.EntityType.NonPolymer, gemmi.EntityType.Water)
    known = gemmi.find_tabulated_residue(residue.name)
    if known.is_amino_acid() and not free:
        letter = known.one_letter_code.strip().upper()
        return letter if len(letter) == 1 and letter.isalpha() else UNKNOWN
    named = bool(known.is_nucleic_acid() or known.is_water())
    standing = residue.het_flag == "A" and any(atom.name == "CA" and atom.element.name == "C" for atom in residue)
    return UNKNOWN if standing and not named and not free else None


def _occupancy(residue: Any) -> float:
    """Occupancy of the C-alpha, else of the best atom."""
    values = [atom.occ for atom in residue if atom.name == "CA"] or [atom.occ for atom in residue] or [0.0]
    return float(max(values))
