"""``equivox simulate particles``: stacks of particle images with a STAR file of their truth."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from equivox.formats.mrc import write_mrc
from equivox.formats.particles import Particles
from equivox.formats.particles_write import write_particles
from equivox.formats.relion_job import RelionVersion
from equivox.geometry.euler_relion import matrix_from_relion, relion_from_matrix
from equivox.run.seeds import generator_for, seed_for
from equivox.simulate.ctf import Microscope
from equivox.simulate.particle_stack import ParticleSimulation, noise_for, simulate_stack
from equivox.simulate.specimen import Specimen
from equivox.tasks.simulate.cryo_run import (
    CryoPlan,
    CryoRun,
    FrameJob,
    MadeFrame,
    keep_frame,
    open_scene,
    require_some,
    require_views,
    run_frames,
)

STAR_NAME, STACKS = "particles.star", "particles"


@dataclass(frozen=True, slots=True, eq=False)
class _Studio:
    """What a worker keeps: the particle, the options, and the noise that gives the ratio asked for."""

    specimen: Specimen
    histogram: torch.Tensor
    config: ParticleSimulation
    microscope: Microscope
    noise_deviation: float


def simulate_particles(
    plan: CryoPlan,
    config: ParticleSimulation,
    *,
    count: int,
    version: RelionVersion = "3.1",
    progress: Callable[[int, int, str, str], None] | None = None,
) -> CryoRun:
    """Write ``particles/*.mrcs`` (``per_micrograph`` images each), ``particles.star`` and ``run.json``.

    Image names in the STAR file are relative to the output folder: that is the project folder for RELION. Origins say
    where the particle lies in its box, angles its pose, CTF columns the microscope; half sets are drawn at random.

    Raises
    ------
    InputError, ConfigError
        If the source or an option cannot be used.
    OutputError
        If results are there already, or cannot be written.
    Interrupted
        After what was finished has been written.
    """
    require_some(count, "--count")
    require_views(plan.views)
    key = plan.key(config.as_dict())
    each = config.per_micrograph
    stacks = math.ceil(count / each)
    jobs = [
        FrameJob(
            f"mic_{number:05d}", seed_for(plan.seed, "particles", number),
            min(each, count - number * each), plan.out / STACKS / f"mic_{number:05d}.mrcs",
            plan.out / "truth" / f"mic_{number:05d}.json", key,
        )
        for number in range(stacks)
    ]  # fmt: skip
    facts = {**config.as_dict(), "count": count, "relion": version}
    return run_frames(
        plan, facts, jobs, _make, functools.partial(_open, plan, config),
        functools.partial(_write_star, plan, config, version), schema="equivox.simulate.particles/1",
        planned=[plan.out / STAR_NAME], progress=progress,
    )  # fmt: skip


def _open(plan: CryoPlan, config: ParticleSimulation) -> _Studio:
    specimen, histogram, _ = open_scene(plan)
    deviation = noise_for(specimen, config, plan.microscope, generator=generator_for(plan.seed, "noise-level"))
    return _Studio(specimen, histogram, config, plan.microscope, deviation)


def _make(studio: _Studio, job: FrameJob) -> MadeFrame:
    """Draw one stack and write it with its truth."""
    generator = torch.Generator().manual_seed(job.seed)
    stack = simulate_stack(
        job.count, studio.specimen, studio.config, studio.microscope, noise_deviation=studio.noise_deviation,
        generator=generator, view_histogram=studio.histogram,
    )  # fmt: skip
    halves = 1 + torch.randint(2, (job.count,), generator=generator)
    write_mrc(job.image, stack.images.numpy(), pixel_size_angstrom=studio.config.pixel_size_angstrom, kind="stack")
    truth = {
        "rot_tilt_psi_deg": relion_from_matrix(stack.rotations.double()).tolist(),
        "shift_px": stack.shifts_px.double().tolist(),
        "half_set": halves.tolist(),
        "defocus": [stack.defocus_u_angstrom, stack.defocus_v_angstrom, stack.defocus_angle_deg],
    }
    return keep_frame(job, truth)


def _write_star(
    plan: CryoPlan, config: ParticleSimulation, version: RelionVersion, frames: Sequence[MadeFrame]
) -> list[Path]:
    """The table of all particles."""
    counts = [len(frame.truth["half_set"]) for frame in frames]
    total = sum(counts)
    angles = torch.tensor([row for frame in frames for row in frame.truth["rot_tilt_psi_deg"]], dtype=torch.float64)
    shifts = np.array([row for frame in frames for row in frame.truth["shift_px"]], dtype=np.float64).reshape(-1, 2)
    defocus = np.repeat(np.array([frame.truth["defocus"] for frame in frames], dtype=np.float64), counts, axis=0)
    phase = np.full(total, config.phase_shift_deg)
    scope, pixel = plan.microscope, config.pixel_size_angstrom
    seen = config.with_ctf
    names = [frame.name for frame, size in zip(frames, counts, strict=True) for _ in range(size)]
    particles = Particles(
        plan.out / STAR_NAME, "relion-3.1", total, tuple(f"{STACKS}/{name}.mrcs" for name in names),
        np.concatenate([np.arange(size, dtype=np.int64) for size in counts]), tuple(f"{name}.mrc" for name in names),
        rotations=matrix_from_relion(*angles.unbind(-1)), origin_angstrom=-shifts * pixel,
        pixel_size_angstrom=np.full(total, pixel), voltage_kv=np.full(total, scope.voltage_kv),
        cs_mm=np.full(total, scope.cs_mm), amplitude_contrast=np.full(total, scope.amplitude_contrast),
        defocus_u_angstrom=defocus[:, 0].copy() if seen else None,
        defocus_v_angstrom=defocus[:, 1].copy() if seen else None,
        defocus_angle_deg=defocus[:, 2].copy() if seen else None, phase_shift_deg=phase if seen else None,
        half_set=np.array([half for frame in frames for half in frame.truth["half_set"]], dtype=np.int64),
        class_number=np.ones(total, dtype=np.int64), image_size_px=np.full(total, config.box_px, dtype=np.int64),
    )  # fmt: skip
    write_particles(plan.out / STAR_NAME, particles, version=version)
    return [plan.out / STAR_NAME]
