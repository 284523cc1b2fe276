"""``equivox simulate particles`` and the options that it shares with ``simulate micrographs``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from equivox.cli.options import RUNNING, Output
from equivox.cli.speaking import print_document, say

if TYPE_CHECKING:
    from equivox.tasks.simulate.cryo_run import CryoPlan, CryoRun

SPECIMEN, OPTICS = Group("Specimen", sort_key=4), Group("Microscope", sort_key=5)
_SOURCE, _SCOPE = Parameter(group=SPECIMEN, negative=""), Parameter(group=OPTICS, negative="")
_LIST = Parameter(group=SPECIMEN, consume_multiple=True, negative="")
_OPTION, _FLAG = Parameter(group=RUNNING), Parameter(group=RUNNING, negative="")
Pair = tuple[float, float]
Triple = tuple[float, float, float]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Work(Output):
    """How the work is run."""

    threads: Annotated[int | None, _OPTION] = None
    """Threads of one process; as many as there are cores, or 1 with several workers."""
    workers: Annotated[int, _OPTION] = 1
    """Processes on this machine."""
    scheduler: Annotated[str | None, _OPTION] = None
    """Address of a running Dask scheduler, for example tcp://10.0.0.5:8786."""
    resume: Annotated[bool, _FLAG] = False
    """Keep what an earlier run with the same options has made."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SpecimenOptions:
    """What is imaged and how it lies."""

    resolution_angstrom: Annotated[float | None, _SOURCE] = None
    """Atoms are Gaussians of 0.225 times this, and maps are blurred by it. [2 pixels for atoms, none for maps]"""
    chains: Annotated[list[str] | None, _LIST] = None
    """Chains of a structure to take. [all]"""
    assembly: Annotated[str | None, _SOURCE] = None
    """Biological assembly to build from a structure, usually 1. [the atoms as they stand]"""
    voxel_size_angstrom: Annotated[float | None, _SOURCE] = None
    """Voxels of a map, instead of what its header says."""
    orientations: Annotated[Literal["uniform", "preferred", "measured"], _SOURCE] = "uniform"
    """Views: uniform, about one view, or as counted in a real data set. [uniform]"""
    view_spread_deg: Annotated[float, _SOURCE] = 20.0
    """Standard deviation about the preferred view."""
    preferred_view: Annotated[Triple, _SOURCE] = (0.0, 0.0, 1.0)
    """Direction x y z in the particle's frame."""
    views: Annotated[Path | None, _SOURCE] = None
    """Your own histogram for measured views: .npz with counts over cos theta and phi. [that of the package]"""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class MicroscopeOptions:
    """The microscope."""

    voltage_kv: Annotated[float, _SCOPE] = 300.0
    """Acceleration voltage."""
    cs_mm: Annotated[float, _SCOPE] = 2.7
    """Spherical aberration."""
    amplitude_contrast: Annotated[float, _SCOPE] = 0.1
    """Share of amplitude contrast."""
    defocus_angstrom: Annotated[Pair | None, _SCOPE] = None
    """From and to; one value per micrograph, underfocus positive. [8000 25000; micrographs 10000 25000]"""
    astigmatism_angstrom: Annotated[float, _SCOPE] = 500.0
    """Largest difference of the defocus along and across."""
    phase_shift_deg: Annotated[float, _SCOPE] = 0.0
    """Of a phase plate."""
    b_factor: Annotated[float, _SCOPE] = 0.0
    """Of the envelope, in Å²."""

    def values(self) -> dict[str, Any]:
        """What belongs to the images; an unset defocus is left out."""
        found = {"astigmatism_angstrom": self.astigmatism_angstrom, "phase_shift_deg": self.phase_shift_deg,
                 "b_factor": self.b_factor}  # fmt: skip
        return found if self.defocus_angstrom is None else {**found, "defocus_angstrom": self.defocus_angstrom}


def particles(
    source: str,
    /,
    *,
    out: Path,
    count: int = 1000,
    per_micrograph: int = 100,
    box_px: int = 64,
    pixel_size_angstrom: float = 3.0,
    snr: float = 0.1,
    shift_px: float = 2.0,
    with_ctf: Annotated[bool, Parameter(negative="--without-ctf")] = True,
    contrast: Literal["white", "dark"] = "white",
    noise: Literal["white", "coloured"] = "white",
    relion: Literal["3.0", "3.1", "5"] = "3.1",
    seed: int = 0,
    specimen: SpecimenOptions | None = None,
    microscope: MicroscopeOptions | None = None,
    work: Work | None = None,
) -> int:
    """Simulate images of single particles with known poses, as an extraction from micrographs gives them.

    Writes particles/*.mrcs, particles.star (poses, origins, CTF, half sets; names relative to the output folder) and
    run.json. The same seed gives the same images, with any number of workers.

    For example:

    equivox simulate particles 1igy --out sim --count 2000 --box-px 64 --pixel-size-angstrom 4 --snr 0.1

    equivox simulate particles model.cif --out sim --assembly 1 --orientations measured --workers 4

    Parameters
    ----------
    source
        Atomic model (.pdb, .cif), map (.mrc), or a sample of the package: 11as, 1igy, 1oel, 3wip.
    out
        Output folder.
    count
        Images.
    per_micrograph
        Images that share a defocus and a stack; another --count changes only the last stack.
    box_px
        Edge of the images, even.
    pixel_size_angstrom
        Edge of their pixels.
    snr
        Variance of the noise-free images over the whole box, over that of the noise.
    shift_px
        Centres are uniform within so many pixels.
    with_ctf
        Apply the contrast transfer function.
    contrast
        White protein as after RELION's extraction, or dark as recorded.
    noise
        White, or falling with frequency.
    relion
        Version of RELION for the STAR file.
    seed
        Seed of everything random.
    specimen
        What is imaged.
    microscope
        The microscope.
    work
        How the work is run.
    """
    from equivox.simulate.particle_stack import ParticleSimulation
    from equivox.tasks.simulate.particles import simulate_particles

    body, scope, speak = specimen or SpecimenOptions(), microscope or MicroscopeOptions(), work or Work()
    config = ParticleSimulation(
        per_micrograph=per_micrograph, box_px=box_px, pixel_size_angstrom=pixel_size_angstrom, snr=snr,
        shift_px=shift_px, with_ctf=with_ctf,
        contrast=contrast, noise=noise, orientations=body.orientations, view_spread_deg=body.view_spread_deg,
        preferred_view=body.preferred_view, **scope.values(),
    )  # fmt: skip
    plan = plan_of(source, out, pixel_size_angstrom, seed, body, scope, speak)
    done = simulate_particles(plan, config, count=count, version=relion, progress=progress_of(speak))
    return report(done, speak, "stacks")


def plan_of(
    source: str, out: Path, pixel: float, seed: int, body: SpecimenOptions, scope: MicroscopeOptions, speak: Work
) -> CryoPlan:
    """The options that both commands share, as the tasks take them."""
    from equivox.run.batch import RunChoice
    from equivox.simulate.ctf import Microscope
    from equivox.tasks.simulate.cryo_run import CryoPlan
    from equivox.tasks.simulate.specimen_files import SpecimenChoice

    choice = SpecimenChoice(
        source, pixel, body.resolution_angstrom, tuple(body.chains or ()), body.assembly, body.voxel_size_angstrom
    )
    run = RunChoice(
        workers=speak.workers, threads=speak.threads, scheduler=speak.scheduler, resume=speak.resume,
        overwrite=speak.overwrite,
    )  # fmt: skip
    microscope = Microscope(scope.voltage_kv, scope.cs_mm, scope.amplitude_contrast)
    return CryoPlan(out, choice, microscope, seed, body.views, run, sys.argv)


def progress_of(speak: Work) -> Any:
    """Prints a line per finished file, or None when quiet."""
    return None if speak.quiet else _print_done


def report(done: CryoRun, speak: Work, what: str) -> int:
    """Say what was made; the exit code."""
    if speak.json:
        print_document(done.as_dict())
    lines = [f"failed: {name}: {reason}" for name, _, reason in done.failures[:12]]
    if not speak.quiet:
        lines += [f"note: {text}" for text in done.warnings]
        lines.append(f"{done.particles} particles in {len(done.made)} {what}: {done.out}")
        lines += [f"  {path}" for path in done.written]
    if lines:
        say(lines)
    return done.exit_code


def _print_done(done: int, total: int, name: str, state: str) -> None:
    say([f"[{done}/{total}] {name}  {state}"])
