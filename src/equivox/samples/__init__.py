"""Small real scans that come with the package, so that the first command can be tried anywhere.

``fetal_epi/``: two EPI stacks of the pregnant uterus with the landmark pose of the head (M. Hoffmann et al., Int. J.
Imaging Syst. Technol. 31(3):1136-1154, 2021, doi 10.1002/ima.22563; BSD 2-Clause, licence beside the files). The
columns of ``poses.csv`` are those of the data set; rotation and translation are ``world_from_head`` in RAS mm.
"""

from __future__ import annotations

from pathlib import Path


def fetal_epi_folder() -> Path:
    """Folder of the two fetal stacks, their ``poses.csv`` and their licence."""
    return Path(__file__).parent / "fetal_epi"
