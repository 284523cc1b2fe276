"""``equivox simulate micrographs``: micrographs with the places and poses of their particles."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from equivox.formats.coordinates import Coordinates
from equivox.formats.coordinates_write import write_coordinates
from equivox.formats.mrc import write_mrc
from equivox.formats.particles import Particles
from equivox.formats.particles_write import write_particles
from equivox.formats.relion_job import COMMENTS, RelionVersion
from equivox.formats.star import make_block, write_star
from equivox.geometry.euler_relion import matrix_from_relion, relion_from_matrix
from equivox.run.seeds import seed_for
from equivox.simulate.micrograph import simulate_micrograph
from equivox.simulate.micrograph_config import MicrographSimulation
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

FOLDER = "micrographs"
PARTICLES, LIST, COORDINATES, DECOYS = "particles.star", "micrographs.star", "coordinates.txt", "decoys.txt"


@dataclass(frozen=True, slots=True, eq=False)
class _Studio:
    """What a worker keeps."""

    specimen: Specimen
    histogram: torch.Tensor
    config: MicrographSimulation
    plan: CryoPlan


def simulate_micrographs(
    plan: CryoPlan,
    config: MicrographSimulation,
    *,
    count: int,
    version: RelionVersion = "3.1",
    progress: Callable[[int, int, str, str], None] | None = None,
) -> CryoRun:
    """Write ``micrographs/*.mrc``, their list, the truth as STAR and as topaz text, the decoys, and ``run.json``.

    Names in the STAR files are relative to the output folder: that is the project folder for RELION. Coordinates are
    those of the particles' centres in pixels of the micrographs.

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
    jobs = [
        FrameJob(
            f"mic_{number:05d}", seed_for(plan.seed, "micrographs", number), config.particles,
            plan.out / FOLDER / f"mic_{number:05d}.mrc", plan.out / "truth" / f"mic_{number:05d}.json", key,
        )
        for number in range(count)
    ]  # fmt: skip
    return run_frames(
        plan, {**config.as_dict(), "count": count, "relion": version}, jobs, _make,
        functools.partial(_open, plan, config), functools.partial(_write_tables, plan, config, version),
        schema="equivox.simulate.micrographs/1",
        planned=[plan.out / name for name in (PARTICLES, LIST, COORDINATES, DECOYS)], progress=progress,
    )  # fmt: skip


def _open(plan: CryoPlan, config: MicrographSimulation) -> _Studio:
    specimen, histogram, _ = open_scene(plan)
    return _Studio(specimen, histogram, config, plan)


def _make(studio: _Studio, job: FrameJob) -> MadeFrame:
    """Draw one micrograph and write it with its truth."""
    found = simulate_micrograph(
        studio.specimen, studio.config, studio.plan.microscope, generator=torch.Generator().manual_seed(job.seed),
        view_histogram=studio.histogram,
    )  # fmt: skip
    write_mrc(job.image, found.image.numpy(), pixel_size_angstrom=studio.config.pixel_size_angstrom, kind="image")
    truth = {
        "rot_tilt_psi_deg": relion_from_matrix(found.rotations.double()).tolist(),
        "xy_px": found.positions_px.tolist(),
        "decoys_xy_px": found.decoys_px.tolist(),
        "defocus": [found.defocus_u_angstrom, found.defocus_v_angstrom, found.defocus_angle_deg],
        "carbon_share": found.carbon,
        "radius_angstrom": studio.specimen.radius_angstrom,
    }
    return keep_frame(job, truth)


def _write_tables(
    plan: CryoPlan, config: MicrographSimulation, version: RelionVersion, frames: Sequence[MadeFrame]
) -> list[Path]:
    """All tables of truth."""
    counts = [len(frame.truth["xy_px"]) for frame in frames]
    total, pixel, scope = sum(counts), config.pixel_size_angstrom, plan.microscope
    named = [f"{FOLDER}/{frame.name}.mrc" for frame in frames]
    names = tuple(name for name, size in zip(named, counts, strict=True) for _ in range(size))
    xy = np.array([row for frame in frames for row in frame.truth["xy_px"]], dtype=np.float64).reshape(-1, 2)
    angles = torch.tensor(
        [row for frame in frames for row in frame.truth["rot_tilt_psi_deg"]], dtype=torch.float64
    ).reshape(-1, 3)
    defocus = np.array([frame.truth["defocus"] for frame in frames], dtype=np.float64).reshape(-1, 3)
    each = np.repeat(defocus, counts, axis=0)
    particles = Particles(
        plan.out / PARTICLES, "relion-3.1", total, micrograph=names, x_px=xy[:, 0].copy(), y_px=xy[:, 1].copy(),
        rotations=matrix_from_relion(*angles.unbind(-1)), origin_angstrom=np.zeros((total, 2)),
        pixel_size_angstrom=np.full(total, pixel), micrograph_pixel_size_angstrom=np.full(total, pixel),
        voltage_kv=np.full(total, scope.voltage_kv), cs_mm=np.full(total, scope.cs_mm),
        amplitude_contrast=np.full(total, scope.amplitude_contrast), defocus_u_angstrom=each[:, 0].copy(),
        defocus_v_angstrom=each[:, 1].copy(), defocus_angle_deg=each[:, 2].copy(),
        phase_shift_deg=np.full(total, config.phase_shift_deg), class_number=np.ones(total, dtype=np.int64),
    )  # fmt: skip
    write_particles(plan.out / PARTICLES, particles, version=version)
    number = COMMENTS[version]
    optics = make_block(
        "optics",
        {
            "rlnOpticsGroupName": ["opticsGroup1"], "rlnOpticsGroup": [1], "rlnVoltage": [scope.voltage_kv],
            "rlnSphericalAberration": [scope.cs_mm], "rlnAmplitudeContrast": [scope.amplitude_contrast],
            "rlnMicrographPixelSize": [pixel],
        },
        version=number,
    )  # fmt: skip
    columns = {
        "rlnMicrographName": named, "rlnOpticsGroup": [1] * len(frames), "rlnDefocusU": defocus[:, 0].tolist(),
        "rlnDefocusV": defocus[:, 1].tolist(), "rlnDefocusAngle": defocus[:, 2].tolist(),
    }  # fmt: skip
    if version == "3.0":
        columns.pop("rlnOpticsGroup")
        shared = {"rlnVoltage": scope.voltage_kv, "rlnSphericalAberration": scope.cs_mm,
                  "rlnAmplitudeContrast": scope.amplitude_contrast, "rlnMagnification": 10000.0,
                  "rlnDetectorPixelSize": pixel}  # fmt: skip
        columns |= {label: [value] * len(frames) for label, value in shared.items()}
        write_star(plan.out / LIST, [make_block("", columns)])
    else:
        write_star(plan.out / LIST, [optics, make_block("micrographs", columns, version=number)])
    made = [plan.out / PARTICLES, plan.out / LIST]
    for file, field in ((COORDINATES, "xy_px"), (DECOYS, "decoys_xy_px")):
        rows = [(name, *row) for name, frame in zip(named, frames, strict=True) for row in frame.truth[field]]
        x, y = (np.array([row[axis] for row in rows], dtype=np.float64) for axis in (1, 2))
        places = Coordinates(plan.out / file, "topaz", tuple(row[0] for row in rows), x, y)
        made += write_coordinates(plan.out / file, places, "topaz")
    return made
