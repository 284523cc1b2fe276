"""Small real scans that come with the package, so that the first command can be tried anywhere.

``fetal_epi/``: two EPI stacks of the pregnant uterus with the landmark pose of the head (M. Hoffmann et al., Int. J.
Imaging Syst. Technol. 31(3):1136-1154, 2021, doi 10.1002/ima.22563; BSD 2-Clause, licence beside the files). The
columns of ``poses.csv`` are those of the data set; rotation and translation are ``world_from_head`` in RAS mm.

``particles/``: density maps of four structures of the Protein Data Bank and a histogram of measured views, CC0 1.0
(LICENSE beside them).

``ixi_brains/``: two adult brains of the IXI dataset, skull-stripped, 2 mm, with ages (CC BY-SA 3.0, LICENSE beside
them). nilearn's package holds the MNI152 template, brain-extracted at 1 mm: :func:`mni152_template` finds it.

``asparagine_synthetase/``: a hundred simulated particles of PDB entry 11AS with their table and the truth, CC0 1.0.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path


def fetal_epi_folder() -> Path:
    """Folder of the two fetal stacks, their ``poses.csv`` and their licence."""
    return Path(__file__).parent / "fetal_epi"


def ixi_brains_folder() -> Path:
    """Folder of two adult brains, ``people.csv`` with their ages, and their licence."""
    return Path(__file__).parent / "ixi_brains"


def mni152_template() -> Path | None:
    """The brain-extracted MNI152 template (1 mm) inside the installed package nilearn; None without nilearn."""
    found = importlib.util.find_spec("nilearn")
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / "datasets" / "data" / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    return path if path.is_file() else None


def particle_maps_folder() -> Path:
    """Folder of the density maps 11as, 1igy, 1oel and 3wip, and of the histogram of views."""
    return Path(__file__).parent / "particles"


def orientation_folder() -> Path:
    """Folder of the sample particles: ``particles.star``, its stack, and ``particles_truth.star`` with their poses."""
    return Path(__file__).parent / "asparagine_synthetase"


def cryoem_folder() -> Path:
    """Folder of one micrograph of beta-galactosidase and one of apoferritin, their labels and their licence."""
    return Path(__file__).parent / "cryoem"
