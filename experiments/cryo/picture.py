"""The picture of simulated micrographs and particles in the documentation.

python experiments/cryo/picture.py --out docs/images/simulated_cryo.webp
"""

from __future__ import annotations

import argparse

import torch
from PIL import Image

from equivox.run.seeds import generator_for
from equivox.simulate.ctf import Microscope
from equivox.simulate.micrograph import simulate_micrograph
from equivox.simulate.micrograph_config import MicrographSimulation
from equivox.simulate.particle_stack import ParticleSimulation, noise_for, simulate_stack
from equivox.tasks.simulate.specimen_files import SpecimenChoice, open_specimen

SIDE = 384


def grey(image: torch.Tensor) -> torch.Tensor:
    """Bytes between the 1st and the 99th percentile."""
    low, high = image.flatten().quantile(0.01), image.flatten().quantile(0.99)
    return ((image - low) / (high - low) * 255).clamp(0, 255).byte()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="docs/images/simulated_cryo.webp")
    out = parser.parse_args().out
    ring, _ = open_specimen(SpecimenChoice("1oel", 4.0))
    clean = {"structural_noise": 0.1, "carbon": 1.0, "gold": 1.0, "contaminants": 2.0}
    config = MicrographSimulation(size_px=(SIDE, SIDE), pixel_size_angstrom=6.0, particles=45, snr=1.0, **clean)
    micrograph = simulate_micrograph(ring, config, Microscope(), generator=generator_for(4, "picture"))
    antibody, _ = open_specimen(SpecimenChoice("1igy", 4.0))
    stacks = ParticleSimulation(box_px=64, pixel_size_angstrom=4.0, snr=0.3)
    noise = noise_for(antibody, stacks, Microscope(), generator=generator_for(4, "noise"))
    found = simulate_stack(
        36, antibody, stacks, Microscope(), noise_deviation=noise, generator=generator_for(4, "particles")
    )
    tiles = found.images.view(6, 6, 64, 64).permute(0, 2, 1, 3).reshape(SIDE, SIDE)
    gap = torch.full((SIDE, 8), 255, dtype=torch.uint8)
    panels = [grey(micrograph.image), gap, grey(micrograph.clean), gap, grey(tiles)]
    Image.fromarray(torch.cat(panels, dim=1).numpy()).save(out, quality=70)


if __name__ == "__main__":
    main()
