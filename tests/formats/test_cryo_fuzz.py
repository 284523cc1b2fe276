"""Damaged cryo-EM files: whatever is broken in them, they are read, or refused in one sentence."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from equivox.errors import EquivoxError
from equivox.formats.coordinates import read_coordinates
from equivox.formats.coordinates_write import write_coordinates
from equivox.formats.micrographs import open_micrograph
from equivox.formats.mrc import read_mrc
from equivox.formats.particles import read_particles
from equivox.formats.particles_write import write_particles
from equivox.formats.star import read_star, star_text

FIXTURES = Path(__file__).parents[1] / "fixtures"
FILES = sorted(
    path
    for folder in (FIXTURES / "cryoem", FIXTURES / "projection2d" / "formats")
    for path in folder.rglob("*")
    if path.suffix in (".mrc", ".mrcs", ".gz", ".star", ".cs", ".box", ".txt", ".csv") and "LICENSE" not in path.name
)
INSERTED = (
    b"\n", b"'", b'"', b"nan", b"loop_\n", b"data_\n", b"_rlnX\n", b"#", b"\t", b";\n", b"1e400", b"-", b"\xff\xfe",
    b"\r", b"\0",
)  # fmt: skip
DAMAGED = 60
"""Files for each seed."""


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Bytes changed, cut off, put in, left out, or repeated."""
    data = bytearray(content)
    if not data:
        return b""
    start = draw.randrange(len(data))
    end = min(len(data), start + draw.randint(1, 60))
    how = draw.choice(["change", "change", "cut", "insert", "remove", "repeat"])
    if how == "change":
        for _ in range(draw.randint(1, 8)):
            data[draw.randrange(min(len(data), 1100))] = draw.randrange(256)
    elif how == "cut":
        del data[start:]
    elif how == "insert":
        data[start:start] = draw.choice(INSERTED)
    elif how == "remove":
        del data[start:end]
    else:
        data[start:start] = data[start:end]
    return bytes(data)


def attempt(function: Any, *arguments: Any, **options: Any) -> Any:
    """The result, or None for a refusal in one line."""
    try:
        return function(*arguments, **options)
    except EquivoxError as error:
        said = str(error)
    assert said
    assert "\n" not in said
    return None


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.filterwarnings("ignore:Data type alias:DeprecationWarning")
def test_damaged_files_are_read_or_refused(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    for _ in range(DAMAGED):
        original = draw.choice(FILES)
        content = damaged(original.read_bytes(), draw)
        path = tmp_path / f"x{''.join(original.suffixes[-2:]) if original.suffix == '.gz' else original.suffix}"
        path.write_bytes(content)
        if ".mrc" in path.name:
            attempt(read_mrc, path)
            attempt(open_micrograph, path)
            continue
        if path.suffix == ".star":
            star = attempt(read_star, path)
            assert star is None or star_text(star).encode("utf-8", "surrogateescape") == content
        if path.suffix in (".star", ".cs"):
            particles = attempt(read_particles, path)
            for name in ("out.star", "out.cs") if particles is not None else ():
                attempt(write_particles, tmp_path / name, particles)
        picks = attempt(read_coordinates, path)
        for name, to in (("a.txt", "topaz"), ("a.csv", "csv"), ("a.star", "star"), ("b", "box")):
            if picks is not None:
                attempt(write_coordinates, tmp_path / name, picks, to, box_px=10.0)
