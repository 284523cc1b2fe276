"""Files of atomic structures (PDB, mmCIF, plain or ``.gz``) as gemmi reads them, with a sentence where it cannot."""

from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path
from typing import Any

from equivox.errors import InputError, MissingExtraError, reason_of
from equivox.formats.archives import require_file

STRUCTURE_ENDINGS = (".pdb", ".ent", ".cif", ".mmcif", ".pdb.gz", ".ent.gz", ".cif.gz", ".mmcif.gz")


def require_structure_file(path: Path | str) -> Path:
    """The path of a structure; InputError if it is no file, or none by its name."""
    path = require_file(path)
    if not path.name.lower().endswith(STRUCTURE_ENDINGS):
        raise InputError(f"{path} is not a structure by its name; give a .pdb, .ent, .cif or .mmcif file (or .gz).")
    return path


def require_gemmi(purpose: str) -> Any:
    """Import gemmi; MissingExtraError, which names the extra that brings it, if it is not installed."""
    try:
        import gemmi
    except ImportError as error:
        raise MissingExtraError("gemmi", "shapes", purpose) from error
    return gemmi


def is_cif(path: Path) -> bool:
    """Whether a structure is mmCIF by its name, else PDB."""
    return path.name.lower().removesuffix(".gz").endswith((".cif", ".mmcif"))


def unpacked(path: Path) -> bytes:
    """The file's bytes, decompressed; InputError if they are cut off or damaged."""
    data = path.read_bytes()
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is truncated or damaged ({error}); copy it again from its source.") from error


def parse_structure(gemmi: Any, path: Path, text: str) -> Any:
    """Gemmi's structure of a file's text, of mmCIF the first block that has atoms.

    Raises
    ------
    InputError
        If the text cannot be read, or holds no atom.
    """
    try:
        if is_cif(path):
            blocks = [block for block in gemmi.cif.read_string(text) if block.find_values("_atom_site.Cartn_x")]
            structure = gemmi.make_structure_from_block(blocks[0]) if blocks else gemmi.Structure()
        else:
            structure = gemmi.read_pdb_string(text)
    except MemoryError:
        raise
    except Exception as error:  # gemmi speaks through several kinds of exception
        reason = re.sub(r"^string:(\d+):\d+\(\d+\)", r"line \1", reason_of(error))
        raise InputError(f"{path} cannot be read ({reason}); copy it again from its source.") from error
    if len(structure) == 0 or structure[0].count_atom_sites() == 0:
        raise InputError(f"{path} holds no atoms; copy it again from its source.")
    return structure
