"""``equivox simulate micrographs``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from equivox.cli.simulate_particles import MicroscopeOptions, SpecimenOptions, Work, plan_of, progress_of, report

FIELD = Group("Field of view", sort_key=6)
_FIELD = Parameter(group=FIELD, negative="")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class FieldOptions:
    """What else is in the picture."""

    particles: Annotated[int, _FIELD] = 60
    """Particles on each micrograph, as far as there is room."""
    spacing: Annotated[float, _FIELD] = 0.9
    """Least distance of two particles, in diameters."""
    touching: Annotated[float, _FIELD] = 0.1
    """Share of particles that lie beside another."""
    noise: Annotated[Literal["white", "coloured"], _FIELD] = "coloured"
    """White, or falling with frequency."""
    structural_noise: Annotated[float, _FIELD] = 0.15
    """The ice's own structure, over the particles' projections, before the CTF."""
    ice_gradient: Annotated[float, _FIELD] = 0.3
    """Uneven brightness, over the noise."""
    decoys: Annotated[float, _FIELD] = 0.15
    """Clouds of blobs of the particle's size, for each particle."""
    broken: Annotated[float, _FIELD] = 0.1
    """Broken particles, for each particle."""
    contaminants: Annotated[float, _FIELD] = 1.5
    """Mean number of patches of ice or dirt."""
    carbon: Annotated[float, _FIELD] = 0.2
    """Share of micrographs with a carbon edge."""
    gold: Annotated[float, _FIELD] = 0.1
    """Share of micrographs with gold beads."""


def micrographs(
    source: str,
    /,
    *,
    out: Path,
    count: int = 10,
    size_px: tuple[int, int] = (512, 512),
    pixel_size_angstrom: float = 8.0,
    snr: float = 0.1,
    relion: Literal["3.0", "3.1", "5"] = "3.1",
    seed: int = 0,
    field: FieldOptions | None = None,
    specimen: SpecimenOptions | None = None,
    microscope: MicroscopeOptions | None = None,
    work: Work | None = None,
) -> int:
    """Simulate micrographs with known particles among decoys, broken particles, dirt, carbon and gold.

    Writes micrographs/*.mrc, micrographs.star, particles.star (coordinates, poses, CTF), coordinates.txt and decoys.txt
    (topaz) and run.json; names are relative to the output folder. Particles are dark, as recorded.

    For example:

    equivox simulate micrographs 1oel --out sim --count 20 --snr 0.3

    equivox simulate micrographs model.pdb --out full --size-px 4096 4096 --pixel-size-angstrom 1 --workers 4

    Parameters
    ----------
    source
        Atomic model (.pdb, .cif), map (.mrc), or a sample of the package: 11as, 1igy, 1oel, 3wip.
    out
        Output folder.
    count
        Micrographs.
    size_px
        Rows and columns.
    pixel_size_angstrom
        Edge of a pixel.
    snr
        Variance of the noise-free image in squares of 1.5 diameters about the particles, over that of the noise.
    relion
        Version of RELION for the STAR files.
    seed
        Seed of everything random.
    field
        What else is in the picture.
    specimen
        What is imaged.
    microscope
        The microscope.
    work
        How the work is run.
    """
    from dataclasses import asdict

    from equivox.simulate.micrograph_config import MicrographSimulation
    from equivox.tasks.simulate.micrographs import simulate_micrographs

    body, scope, speak = specimen or SpecimenOptions(), microscope or MicroscopeOptions(), work or Work()
    config = MicrographSimulation(
        size_px=size_px, pixel_size_angstrom=pixel_size_angstrom, snr=snr, orientations=body.orientations,
        view_spread_deg=body.view_spread_deg, preferred_view=body.preferred_view, **scope.values(),
        **asdict(field or FieldOptions()),
    )  # fmt: skip
    plan = plan_of(source, out, pixel_size_angstrom, seed, body, scope, speak)
    done = simulate_micrographs(plan, config, count=count, version=relion, progress=progress_of(speak))
    return report(done, speak, "micrographs")
