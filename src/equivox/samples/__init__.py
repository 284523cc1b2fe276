"""Small real scans that come with the package, so that the first command can be tried anywhere.

``fetal_epi/``: two EPI stacks of the pregnant uterus with the landmark pose of the head (M. Hoffmann et al., Int. J.
Imaging Syst. Technol. 31(3):1136-1154, 2021, doi 10.1002/ima.22563; BSD 2-Clause, licence beside the files). The
columns of ``poses.csv`` are those of the data set; rotation and translation are ``world_from_head`` in RAS mm.

``particles/``: density maps of four structures of the Protein Data Bank and a histogram of measured views, CC0 1.0
(LICENSE beside them).

``asparagine_synthetase/``: a hundred simulated particles of PDB entry 11AS with their table and the truth, CC0 1.0.
"""

from __future__ import annotations

from pathlib import Path


def fetal_epi_folder() -> Path:
    """Folder of the two fetal stacks, their ``poses.csv`` and their licence."""
    return Path(__file__).parent / "fetal_epi"


def particle_maps_folder() -> Path:
    """Folder of the density maps 11as, 1igy, 1oel and 3wip, and of the histogram of views."""
    return Path(__file__).parent / "particles"


def orientation_folder() -> Path:
    """Folder of the sample particles: ``particles.star``, its stack, and ``particles_truth.star`` with their poses."""
    return Path(__file__).parent / "asparagine_synthetase"


def cryoem_folder() -> Path:
    """Folder of one micrograph of beta-galactosidase and one of apoferritin, their labels and their licence."""
    return Path(__file__).parent / "cryoem"
