"""Galaxy Zoo 2: classes of pictures from its catalogues (projection2d.md 10.3).

Eight classes, the first two letters of ``gz2class`` without its bar: ellipticals by roundness (Er, Ei, Ec), edge-on
disks (Se), disks by their bulge (Sa, Sb, Sc, Sd). Artefacts are left out. The votes of the Kaggle challenge are
followed down the same tree of questions.
"""

from __future__ import annotations

from pathlib import Path

from equivox.errors import InputError
from equivox.formats.tables import read_header, read_table

CLASSES = ("Er", "Ei", "Ec", "Se", "Sa", "Sb", "Sc", "Sd")
IDENTIFIERS = ("asset_id", "GalaxyID", "galaxy_id", "dr7objid", "OBJID", "objid", "file")
STRINGS = ("gz2class", "gz2_class")
SMOOTH, DISK, ARTEFACT = "Class1.1", "Class1.2", "Class1.3"
EDGE_ON, FACE_ON = "Class2.1", "Class2.2"
BULGE = {"Class5.1": "Sd", "Class5.2": "Sc", "Class5.3": "Sb", "Class5.4": "Sa"}
ROUNDNESS = {"Class7.1": "Er", "Class7.2": "Ei", "Class7.3": "Ec"}
VOTES = (SMOOTH, DISK, ARTEFACT, EDGE_ON, FACE_ON, *BULGE, *ROUNDNESS)


def is_galaxy_table(table: Path) -> bool:
    """Whether a table is one of Galaxy Zoo's: it has ``gz2class``, or the votes of the Kaggle challenge."""
    header = read_header(table)
    return any(name in header for name in STRINGS) or all(name in header for name in VOTES)


def read_galaxy_table(table: Path) -> tuple[list[tuple[str, str, str, str]], int]:
    """Rows (where, picture, class, part) of a catalogue, and how many artefacts and unknown classes are left out.

    Raises
    ------
    InputError
        If the table has no column that names the picture, or a vote is no number.
    """
    header = read_header(table)
    identifier = next((name for name in IDENTIFIERS if name in header), None)
    if identifier is None:
        raise InputError(f"{table} has no column that names the picture; call it file, GalaxyID, asset_id or dr7objid.")
    strings = next((name for name in STRINGS if name in header), None)
    rows, dropped = [], 0
    for row in read_table(table, required=(identifier,), unique=(identifier,)):
        if strings is not None:
            found = class_of_string(row.text(strings))
        else:
            found = class_of_votes({name: row.number(name) for name in VOTES})
        if found:
            rows.append((row.where, row.text(identifier), found, row.cells.get("split", "").strip()))
        else:
            dropped += 1
    return rows, dropped


def class_of_string(code: str) -> str:
    """``"SBc?t"`` is ``"Sc"``; empty for artefacts and what is none of the eight.

    >>> [class_of_string(code) for code in ("Ei", "SBb2m", "Ser", "A")]
    ['Ei', 'Sb', 'Se', '']
    """
    plain = "S" + code[2:] if code.startswith("SB") else code
    return plain[:2] if plain[:2] in CLASSES else ""


def class_of_votes(votes: dict[str, float]) -> str:
    """The answer with most votes at every question, down the tree."""
    if votes[ARTEFACT] > max(votes[SMOOTH], votes[DISK]):
        return ""
    if votes[SMOOTH] >= votes[DISK]:
        return ROUNDNESS[max(ROUNDNESS, key=lambda name: votes[name])]
    if votes[EDGE_ON] > votes[FACE_ON]:
        return "Se"
    return BULGE[max(BULGE, key=lambda name: votes[name])]
