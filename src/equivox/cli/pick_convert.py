"""``equivox pick convert``: coordinates and particles between programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from equivox.cli.options import Output
from equivox.cli.speaking import print_document, say

PIXELS = Group("Pixels", sort_key=5)
_OPTION = Parameter(group=PIXELS)
_FLAG = Parameter(group=PIXELS, negative="")
_MANY = Parameter(consume_multiple=True, negative="")
SHOWN = 12


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class PixelOptions:
    """How coordinates are brought to other pixels."""

    scale: Annotated[float | None, _OPTION] = None
    """Multiply coordinates and boxes by this, for example 8 from an image binned 8 times."""
    from_pixel_size_angstrom: Annotated[float | None, _OPTION] = None
    """Å of the pixels that the coordinates count; with the next one instead of --scale."""
    to_pixel_size_angstrom: Annotated[float | None, _OPTION] = None
    """Å of the pixels to count in the output."""
    averaged: Annotated[bool, _FLAG] = False
    """Pixels were binned by averaging blocks, which moves centres by half a pixel (Fourier cropping does not)."""
    flip_y: Annotated[bool, _FLAG] = False
    """Count y from the other end, y' = rows - 1 - y; needs --micrographs or --height-px."""
    height_px: Annotated[int | None, _OPTION] = None
    """Rows of the micrographs of the output, where --micrographs is not given."""
    box_px: Annotated[float | None, _OPTION] = None
    """Edge of the boxes in .box and .cbox files, in pixels of the output."""


def convert(
    sources: list[Path],
    /,
    *,
    out: Path,
    to: Literal["topaz", "csv", "star", "relion", "box", "cbox", "cs"] | None = None,
    micrographs: Annotated[list[Path] | None, _MANY] = None,
    passthrough: Annotated[list[Path] | None, _MANY] = None,
    threshold: float | None = None,
    keep_outside: Annotated[bool, Parameter(negative="")] = False,
    relion: Literal["3.0", "3.1", "5"] = "5",
    pixels: PixelOptions | None = None,
    output: Output | None = None,
) -> int:
    """Convert coordinates and particles between topaz, RELION, EMAN, crYOLO, cryoSPARC and CSV.

    Centres are 0-based pixel centres of the file, y from row 0. A particle table (.star or .cs with images) keeps its
    images, poses, optics and, within RELION, every column. Names that fit no micrograph are listed.

    For example:

    equivox pick convert picks.csv --out AutoPick/job009 --to relion --micrographs MotionCorr/job002/mics

    equivox pick convert particles.cs --passthrough passthrough.cs --out particles.star --relion 3.1

    Parameters
    ----------
    sources
        Files, folders or globs: topaz text, .star (3.0 to 5, per micrograph, lists, particles), .box, .cbox, .cs, .csv,
        EMAN2's _info.json.
    out
        File; for relion, box and cbox a folder (with one file per micrograph).
    to
        Format of the output, where its ending does not say; relion: a STAR file per micrograph and the job's lists.
    micrographs
        Micrographs that the output is for: names are matched with them and written as given here, and coordinates are
        checked against their sizes and contrast.
    passthrough
        Passthrough files of a .cs.
    threshold
        Keep picks with at least this score.
    keep_outside
        Keep coordinates beyond the micrographs.
    relion
        Version of RELION for STAR files.
    pixels
        How coordinates are brought to other pixels.
    output
        How the command speaks.
    """
    from equivox.formats.coordinates_write import format_for
    from equivox.tasks.pick.convert import ConvertConfig, convert_picks
    from equivox.tasks.pick.convert_particles import convert_particles, holds_particles

    speak, moved = output or Output(), pixels or PixelOptions()
    config = ConvertConfig(
        to=to, scale=moved.scale, from_pixel_size_angstrom=moved.from_pixel_size_angstrom,
        to_pixel_size_angstrom=moved.to_pixel_size_angstrom, averaged=moved.averaged, flip_y=moved.flip_y,
        height_px=moved.height_px, box_px=moved.box_px, threshold=threshold, keep_outside=keep_outside, version=relion,
    )  # fmt: skip
    kind = format_for(out, to)
    if holds_particles(sources, kind):
        done = convert_particles(
            sources[0], out, config, kind, micrographs=micrographs or [], passthrough=passthrough or [],
            overwrite=speak.overwrite,
        )  # fmt: skip
    else:
        done = convert_picks(
            sources, out, config, micrographs=micrographs or [], passthrough=passthrough or [],
            overwrite=speak.overwrite,
        )  # fmt: skip
    if speak.json:
        print_document(done.as_dict())
    lines = [f"left out: {name}: {reason}" for name, reason in done.failures[:SHOWN]]
    if len(done.failures) > SHOWN:
        lines.append(f"left out: and {len(done.failures) - SHOWN} more (--json lists all)")
    if not speak.quiet:
        lines += [f"note: {text}" for text in done.warnings[:SHOWN]]
        files = str(done.written[0]) if len(done.written) == 1 else f"{len(done.written)} files in {out}"
        lines.append(f"{done.picks} picks on {done.micrographs} micrographs to {done.format}: {files}")
    if lines:
        say(lines)
    return done.exit_code
