"""Write a stack of simulated particles with its table and the truth: the sample that comes with the package.

100 pictures of the asparagine synthetase dimer (PDB 11AS, one Gaussian per residue): 64 px of 2 Å, underfocus 0.9 to
2.2 µm at 300 kV, white noise at a signal-to-noise of 0.05 to 0.5 over the box, centres up to 5 Å off, light particles,
normalised as RELION does. Pose and origin of every particle are in ``particles_truth.star``.

    python experiments/orient/make_sample.py ../shared/data/cryoem/structures/11as.pdb.gz --out build/sample
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch

from equivox.formats.mrc import write_mrc
from equivox.formats.star import make_block, write_star
from equivox.geometry.euler_relion import relion_from_matrix
from equivox.geometry.rotations import random_rotations
from equivox.simulate.ctf import Microscope, apply_transfer, ctf
from equivox.simulate.point_particle import project_points
from equivox.tasks.orient.particle import load_particle
from equivox.tasks.orient.picture import normalise_background

MICROGRAPHS, VERSION = 5, 30001


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("structure")
    parser.add_argument("--chains", default="")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--pixel-size-angstrom", type=float, default=2.0)
    parser.add_argument("--snr", type=float, nargs=2, default=(0.05, 0.5))
    parser.add_argument("--shift-angstrom", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=2024)
    given = parser.parse_args()
    torch.set_num_threads(1)
    box, pixel, count = given.box, given.pixel_size_angstrom, given.count
    points = load_particle(given.structure, chains=given.chains).points
    draw = torch.Generator().manual_seed(given.seed)
    rotations = random_rotations(count, generator=draw)
    shifts = (torch.rand(count, 2, generator=draw) * 2.0 - 1.0) * given.shift_angstrom
    micrograph = torch.arange(count) * MICROGRAPHS // count
    defocus = (9000.0 + 13000.0 * torch.rand(MICROGRAPHS, generator=draw, dtype=torch.float64))[micrograph]
    angle = (180.0 * torch.rand(MICROGRAPHS, generator=draw, dtype=torch.float64))[micrograph]
    side = 2 * box  # room for what the transfer spreads; the centre is pixel n / 2
    parts = []
    for start in range(0, count, 100):
        rows = slice(start, start + 100)
        images = project_points(
            points, rotations[rows], side=side, pixel_size_angstrom=pixel, shifts_px=shifts[rows] / pixel + 0.5
        )
        transfer = ctf(
            (side, side), pixel, Microscope(), defocus_u_angstrom=defocus[rows] + 150.0,
            defocus_v_angstrom=defocus[rows] - 150.0, defocus_angle_deg=angle[rows],
        )  # fmt: skip
        images = apply_transfer(images, transfer.float())[:, box // 2 : -box // 2, box // 2 : -box // 2]
        low, high = (math.log(bound) for bound in given.snr)
        level = torch.exp(low + (high - low) * torch.rand(len(images), generator=draw))
        sigma = (images.flatten(1).var(1) / level).sqrt()
        images = images + sigma[:, None, None] * torch.randn(images.shape, generator=draw)
        parts.append(normalise_background(images).numpy().astype(np.float16))
    given.out.mkdir(parents=True, exist_ok=True)
    write_mrc(given.out / "particles.mrcs", np.concatenate(parts), pixel_size_angstrom=pixel, kind="stack")
    optics = {
        "rlnOpticsGroupName": ["simulated"], "rlnOpticsGroup": [1], "rlnVoltage": [300.0],
        "rlnSphericalAberration": [2.7], "rlnAmplitudeContrast": [0.1], "rlnImagePixelSize": [pixel],
        "rlnImageSize": [box], "rlnImageDimensionality": [2],
    }  # fmt: skip
    rows = {
        "rlnImageName": [f"{index + 1:06d}@particles.mrcs" for index in range(count)],
        "rlnMicrographName": [f"micrograph_{int(index) + 1:03d}.mrc" for index in micrograph],
        "rlnOpticsGroup": [1] * count, "rlnDefocusU": (defocus + 150.0).tolist(),
        "rlnDefocusV": (defocus - 150.0).tolist(), "rlnDefocusAngle": angle.tolist(),
    }  # fmt: skip
    angles = relion_from_matrix(rotations).numpy()
    truth = {
        "rlnAngleRot": angles[:, 0].tolist(), "rlnAngleTilt": angles[:, 1].tolist(),
        "rlnAnglePsi": angles[:, 2].tolist(), "rlnOriginXAngst": (-shifts[:, 0]).tolist(),
        "rlnOriginYAngst": (-shifts[:, 1]).tolist(),
    }  # fmt: skip
    for name, columns in (("particles.star", rows), ("particles_truth.star", rows | truth)):
        blocks = [
            make_block("optics", optics, version=VERSION), make_block("particles", columns, version=VERSION),
        ]  # fmt: skip
        write_star(given.out / name, blocks)
    print(f"{count} particles in {given.out}")


if __name__ == "__main__":
    main()
