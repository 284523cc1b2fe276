"""``pick convert``: coordinates and particle tables from one program's files into another's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from equivox import __version__
from equivox.errors import ConfigError, InputError
from equivox.formats.atomic import require_absent
from equivox.formats.coordinates import CoordinateFormat, Coordinates, read_coordinates
from equivox.formats.coordinates_star import joined
from equivox.formats.coordinates_write import format_for, planned_files, write_coordinates
from equivox.formats.micrograph_names import match_names
from equivox.formats.micrographs import MicrographInput, find_micrographs
from equivox.formats.relion_job import RelionVersion
from equivox.tasks.pick.convert_checks import (
    Field,
    binned_sentence,
    flip_sentence,
    inside,
    outside_sentence,
    read_fields,
)
from equivox.tasks.pick.labels import coordinate_files

SCHEMA = "equivox.pick-convert/1"


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """What is changed on the way."""

    to: CoordinateFormat | None = None
    """Format of the output; by default that of its ending."""
    scale: float | None = None
    """Coordinates are multiplied by this."""
    from_pixel_size_angstrom: float | None = None
    """Pixels that the coordinates count; with the next one it gives the scale."""
    to_pixel_size_angstrom: float | None = None
    """Pixels to count in the output."""
    averaged: bool = False
    """Pixels were binned by averaging, so that pixel centres moved by half a pixel."""
    flip_y: bool = False
    """Count y from the other end."""
    height_px: int | None = None
    """Rows of the micrographs of the output, for the flip where no micrographs are given."""
    box_px: float | None = None
    """Edge of the boxes in the output."""
    threshold: float | None = None
    """Keep picks of at least this score."""
    keep_outside: bool = False
    """Keep coordinates beyond the micrographs."""
    version: RelionVersion = "5"
    """Of RELION, for STAR files."""

    def __post_init__(self) -> None:
        sizes = (self.from_pixel_size_angstrom, self.to_pixel_size_angstrom)
        if (sizes[0] is None) != (sizes[1] is None):
            raise ConfigError("--from-pixel-size-angstrom and --to-pixel-size-angstrom belong together; give both.")
        if self.scale is not None and sizes[0] is not None:
            raise ConfigError("--scale and the two pixel sizes exclude each other; give one of them.")
        for name, value in (
            ("--scale", self.scale), ("--from-pixel-size-angstrom", sizes[0]), ("--to-pixel-size-angstrom", sizes[1]),
            ("--box-px", self.box_px), ("--height-px", self.height_px),
        ):  # fmt: skip
            if value is not None and not (np.isfinite(value) and value > 0):
                raise ConfigError(f"{name} is {value}; give a positive number.")

    @property
    def factor(self) -> float:
        """What coordinates are multiplied by."""
        if self.from_pixel_size_angstrom is not None and self.to_pixel_size_angstrom is not None:
            return self.from_pixel_size_angstrom / self.to_pixel_size_angstrom
        return 1.0 if self.scale is None else self.scale


@dataclass(frozen=True, slots=True)
class Converted:
    """What was read and written.

    ``failures`` are files that could not be read and names without a micrograph, each with its reason.
    """

    read: tuple[tuple[str, str, int], ...]
    format: CoordinateFormat
    written: tuple[Path, ...]
    picks: int
    micrographs: int
    warnings: tuple[str, ...]
    failures: tuple[tuple[str, str], ...]

    @property
    def exit_code(self) -> int:
        """0, or 1 if something was left out that was asked for."""
        return 1 if self.failures else 0

    def as_dict(self) -> dict[str, object]:
        """The document of ``--json``."""
        return {
            "schema": SCHEMA,
            "version": __version__,
            "results": [
                {
                    "format": self.format,
                    "picks": self.picks,
                    "micrographs": self.micrographs,
                    "written": [str(path) for path in self.written],
                    "read": [{"path": path, "format": kind, "picks": count} for path, kind, count in self.read],
                }
            ],
            "warnings": list(self.warnings),
            "errors": [{"code": "EQV-INPUT", "input": name, "message": reason} for name, reason in self.failures],
        }


def convert_picks(
    sources: Sequence[Path | str],
    out: Path | str,
    config: ConvertConfig | None = None,
    *,
    micrographs: Sequence[Path | str] = (),
    passthrough: Sequence[Path | str] = (),
    overwrite: bool = False,
) -> Converted:
    """Read coordinate files, bring them to other pixels, and write them in another format.

    Parameters
    ----------
    sources
        Files, folders or globs.
    out
        File or, for ``relion``, ``box`` and ``cbox``, folder.
    config
        What is changed.
    micrographs
        Files, folders or globs of the micrographs that the output is for. Names are matched with them and written as
        given here; coordinates are checked against their sizes and their contrast.
    passthrough
        Passthrough files of a ``.cs``.
    overwrite
        Replace existing files.

    Raises
    ------
    InputError
        If nothing can be read or used, or most coordinates lie outside the micrographs.
    ConfigError
        If options exclude each other or one is missing.
    OutputError
        If files exist already or cannot be written.
    """
    config, out = config or ConvertConfig(), Path(out)
    to = format_for(out, config.to)
    parts, failures = _read_all(sources, passthrough)
    read = tuple((str(part.path), part.format, len(part)) for part in parts)
    picks = joined(Path(read[0][0]), parts) if len(parts) > 1 else parts[0]
    warnings = list(picks.warnings)
    picks = rescaled(picks, config.factor, averaged=config.averaged)
    entries = find_micrographs(micrographs) if micrographs else []
    fields, problems, doubts = read_fields(entries)
    warnings += doubts
    failures += list(problems.items())
    if entries:
        picks, unmatched = _matched(picks, entries)
        failures += list(unmatched.items())
        without = [name for name in fields if name not in set(picks.micrograph)]
        if without:
            warnings.append(f"{_counted(len(without), 'micrograph')} without picks, the first {without[0]}.")
    shapes = {name: field.shape for name, field in fields.items()} if entries else _own_shapes(picks, config.factor)
    if config.flip_y:
        picks = flipped(picks, shapes, config.height_px)
    if config.threshold is not None:
        picks = _above(picks, config.threshold)
    picks, said = _checked(picks, shapes, {entry.name: entry for entry in entries}, config)
    warnings += said
    if len(picks) == 0:
        warnings.append("There is no pick left to write; the output is an empty table.")
    picks = replace(picks, columns={k: v for k, v in picks.columns.items() if k not in ("width_px", "height_px")})
    require_absent(planned_files(out, picks, to), overwrite=overwrite)
    sizes = _pixel_sizes(fields, config)
    written = write_coordinates(
        out, picks, to, box_px=config.box_px, version=config.version, shapes=shapes, pixel_sizes=sizes,
        micrographs=list(fields),
    )  # fmt: skip
    return Converted(
        read, to, tuple(written), len(picks), len(picks.by_micrograph()), tuple(dict.fromkeys(warnings)),
        tuple(failures),
    )  # fmt: skip


def rescaled(picks: Coordinates, factor: float, *, averaged: bool = False) -> Coordinates:
    """Coordinates and boxes times ``factor``.

    Images that were made smaller by cropping their Fourier transform keep sample 0 in place, ``x' = x f``. Averaged
    blocks have their centres half a block on: ``x' = (x + 1/2) f - 1/2``.
    """
    half = 0.5 if averaged else 0.0
    return replace(
        picks,
        x_px=(picks.x_px + half) * factor - half,
        y_px=(picks.y_px + half) * factor - half,
        box_px=None if picks.box_px is None else picks.box_px * factor,
    )


def flipped(picks: Coordinates, shapes: dict[str, tuple[int, int]], height_px: int | None = None) -> Coordinates:
    """Count y from the other end: ``y' = rows - 1 - y``.

    Raises
    ------
    ConfigError
        If the number of rows of a micrograph is not known.
    """
    rows = np.empty(len(picks))
    for index, name in enumerate(picks.micrograph):
        if name not in shapes and height_px is None:
            raise ConfigError(f"--flip-y needs the height of {name}; give --micrographs or --height-px.")
        rows[index] = shapes[name][0] if name in shapes else height_px
    return replace(picks, y_px=rows - 1.0 - picks.y_px)


def _read_all(
    sources: Sequence[Path | str], passthrough: Sequence[Path | str]
) -> tuple[list[Coordinates], list[tuple[str, str]]]:
    """All files that can be read, and why the others cannot; InputError if none can."""
    if not sources:
        raise InputError("No file of coordinates was given; name files, folders or globs in quotes.")
    parts: list[Coordinates] = []
    failures: list[tuple[str, str]] = []
    for source in sources:
        try:
            files = coordinate_files([source])
        except InputError as error:
            failures.append((str(source), str(error)))
            continue
        for path in files:
            try:
                parts.append(read_coordinates(path, passthrough=passthrough if path.suffix == ".cs" else ()))
            except InputError as error:
                failures.append((str(path), str(error)))
    if not parts:
        raise InputError(failures[0][1])
    return parts, failures


def _matched(picks: Coordinates, entries: Sequence[MicrographInput]) -> tuple[Coordinates, dict[str, str]]:
    """The picks of known micrographs under the names given, and the other names with the reason.

    Raises
    ------
    InputError
        If no name fits.
    """
    names = [entry.name for entry in entries]
    matching = match_names(picks.micrograph, names)
    kept = [index for index, found in enumerate(matching.found) if found >= 0]
    if len(picks) and not kept:
        name, reason = next(iter(matching.reasons.items()))
        raise InputError(
            f"None of the {len(matching.reasons)} names in the coordinates fits a micrograph given, for example "
            f"{name!r}: {reason}; give coordinates and micrographs that belong together."
        )
    chosen = picks.select(kept)
    return replace(chosen, micrograph=tuple(names[matching.found[index]] for index in kept)), matching.reasons


def _own_shapes(picks: Coordinates, factor: float) -> dict[str, tuple[int, int]]:
    """Sizes that the coordinate file itself tells (``.cs``), in output pixels."""
    if not {"width_px", "height_px"} <= set(picks.columns):
        return {}
    rows, columns = picks.columns["height_px"], picks.columns["width_px"]
    named = zip(picks.micrograph, rows, columns, strict=True)
    return {name: (round(int(row) * factor), round(int(column) * factor)) for name, row, column in named}


def _above(picks: Coordinates, threshold: float) -> Coordinates:
    """Picks of at least this score; ConfigError if there are no scores."""
    if picks.score is None:
        raise ConfigError(f"--threshold {threshold:g} was given, but {picks.path} has no scores.")
    return picks.select(np.flatnonzero(picks.score >= threshold))


def _checked(
    picks: Coordinates,
    shapes: dict[str, tuple[int, int]],
    entries: dict[str, MicrographInput],
    config: ConvertConfig,
) -> tuple[Coordinates, list[str]]:
    """Leave out what lies outside, and say what is doubtful."""
    said = [outside_sentence(picks, shapes, kept=config.keep_outside), binned_sentence(picks, shapes)]
    if not config.keep_outside:
        picks = picks.select(np.flatnonzero(inside(picks, shapes)))
    if entries and said[1] is None:
        said.append(flip_sentence(picks, entries, flipped=config.flip_y))
    names = set(picks.micrograph)
    if len(names) == 1 and len(entries) > 1:
        said.append(f"All {len(picks)} picks are on one of {len(entries)} micrographs, {next(iter(names))}.")
    return picks, [text for text in said if text is not None]


def _pixel_sizes(fields: dict[str, Field], config: ConvertConfig) -> dict[str, float]:
    """Å per pixel of the output, where known."""
    if config.to_pixel_size_angstrom is not None:
        return dict.fromkeys(fields, config.to_pixel_size_angstrom)
    return {name: one.pixel_size_angstrom for name, one in fields.items() if one.pixel_size_angstrom is not None}


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
