"""``pick convert`` of particle tables: images, poses and microscope stay, coordinates are brought to other pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from equivox.errors import ConfigError, InputError
from equivox.formats.atomic import require_absent
from equivox.formats.coordinates import CoordinateFormat
from equivox.formats.cryosparc import fields_of, is_cs, read_cs
from equivox.formats.micrograph_names import match_names
from equivox.formats.micrographs import find_micrographs
from equivox.formats.particles import Particles, read_particles
from equivox.formats.particles_write import write_particles
from equivox.formats.star import read_star
from equivox.tasks.pick.convert import ConvertConfig, Converted
from equivox.tasks.pick.convert_checks import read_fields
from equivox.tasks.pick.labels import coordinate_files


def holds_particles(sources: Sequence[Path | str], to: CoordinateFormat) -> bool:
    """Whether there is one source, it names particle images or holds poses, and ``to`` can hold them."""
    if to not in ("star", "cs") or len(sources) != 1:
        return False
    files = coordinate_files(sources)
    if len(files) != 1 or not files[0].is_file():
        return False
    if is_cs(files[0]):
        try:
            return bool({"blob/path", "alignments3D/pose"} & set(fields_of(read_cs(files[0]))))
        except InputError:
            return False
    if files[0].suffix.lower() != ".star":
        return False
    try:
        blocks = read_star(files[0]).blocks
    except InputError:
        return False  # said by the reader of coordinates
    return any(block.has("rlnImageName") for block in blocks)


def convert_particles(
    source: Path | str,
    out: Path | str,
    config: ConvertConfig,
    to: CoordinateFormat,
    *,
    micrographs: Sequence[Path | str] = (),
    passthrough: Sequence[Path | str] = (),
    overwrite: bool = False,
) -> Converted:
    """Read a table of particles and write it for RELION or cryoSPARC with everything that both can hold.

    Raises
    ------
    InputError
        If the table cannot be read, or a flip needs micrographs that are not given.
    OutputError
        If ``out`` exists already or cannot be written.
    """
    out = Path(out)
    require_absent([out], overwrite=overwrite)
    if (to == "cs") != (out.suffix.lower() == ".cs"):
        raise ConfigError(f"{out} is to be a {to} file; let its name end in .{to}.")
    path = coordinate_files([source])[0]
    particles = read_particles(path, passthrough=passthrough)
    entries = find_micrographs(micrographs) if micrographs else []
    fields, problems, warnings = read_fields(entries)
    shapes = {name: field.shape for name, field in fields.items()}
    particles, unmatched = _with_shapes(particles, shapes, config.factor)
    particles = _moved(particles, config)
    if config.threshold is not None:
        if particles.score is None:
            raise ConfigError(f"--threshold {config.threshold:g} was given, but {path} has no scores.")
        particles = particles.select(np.flatnonzero(particles.score >= config.threshold))
    lost = write_particles(out, particles, version=None if to == "cs" else config.version)
    micrograph_count = len(set(particles.micrograph or ()))
    return Converted(
        ((str(path), particles.layout, len(particles)),), to, (out,), len(particles), micrograph_count,
        (*particles.warnings, *warnings, *lost), (*problems.items(), *unmatched.items()),
    )  # fmt: skip


def _with_shapes(
    particles: Particles, shapes: dict[str, tuple[int, int]], factor: float
) -> tuple[Particles, dict[str, str]]:
    """Sizes of the particles' micrographs in output pixels: of the files given, else what the table says."""
    if not shapes or particles.micrograph is None:
        known = particles.micrograph_shape
        scaled = None if known is None else np.round(known * factor).astype(np.int64)
        return replace(particles, micrograph_shape=scaled), {}
    names = list(shapes)
    matching = match_names(particles.micrograph, names)
    kept = [index for index, found in enumerate(matching.found) if found >= 0]
    if not kept and len(particles):
        name, reason = next(iter(matching.reasons.items()))
        raise InputError(f"No micrograph given fits the particles of {particles.path}, for example {name!r}: {reason}.")
    sizes = np.array([shapes[names[matching.found[index]]] for index in kept], dtype=np.int64).reshape(-1, 2)
    return replace(particles.select(kept), micrograph_shape=sizes), matching.reasons


def _moved(particles: Particles, config: ConvertConfig) -> Particles:
    """Coordinates scaled and flipped; poses and origins belong to the images and stay."""
    x, y = particles.x_px, particles.y_px
    if x is None or y is None:
        if config.flip_y or config.factor != 1.0:
            raise InputError(f"{particles.path} has no coordinates to scale or flip; leave those options out.")
        return particles
    half = 0.5 if config.averaged else 0.0
    x, y = (x + half) * config.factor - half, (y + half) * config.factor - half
    if config.flip_y:
        rows: np.ndarray | int | None = config.height_px
        if particles.micrograph_shape is not None:
            rows = particles.micrograph_shape[:, 0].astype(np.float64)
        if rows is None:
            raise ConfigError("--flip-y needs the height of the micrographs; give --micrographs or --height-px.")
        y = rows - 1.0 - y
    return particles.with_coordinates(x, y)
