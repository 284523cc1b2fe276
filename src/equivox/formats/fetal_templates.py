"""Folders of fetal brain templates: T2 atlases with tissue labels, and a median EPI head.

Files: ``sba_ga<week>_*_t2.nii.gz`` and ``sba_ga<week>_*_seg.nii.gz`` (T2, labels 0 to 8 on one grid, RAS, mid-line at
x = 0), and, if there, ``epi_head_*.nii.gz`` with ``epi_head_*_brain.nii.gz`` (a head in frame A, its brain).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from equivox.errors import InputError
from equivox.formats.nifti import open_scan, read_volume
from equivox.geometry.space import Volume

SHIPPED = Path(__file__).resolve().parents[1] / "samples" / "fetal_templates"
"""Atlases of 24 to 34 weeks (Fidon et al. 2021, CC0 1.0) and a median EPI head (BSD 2-Clause)."""
LABEL_COUNT = 8


@dataclass(frozen=True, slots=True)
class TemplateFiles:
    """What a folder holds.

    Parameters
    ----------
    atlases
        T2 image, labels (a volume on the same grid) and age in weeks of each atlas.
    epi
        The median EPI head and its brain (percent), or None.
    """

    atlases: tuple[tuple[Volume, Volume, float], ...]
    epi: tuple[Volume, Volume] | None


def read_templates(folder: Path | str | None = None, *, youngest_weeks: float = 24.0) -> TemplateFiles:
    """Read every template of a folder; by default those that come with the package.

    Raises
    ------
    InputError
        If there is no atlas, a file cannot be read, or two files that belong together differ in their grid.
    MissingExtraError
        If nibabel is not installed.
    """
    place = SHIPPED if folder is None else Path(folder)
    if not place.is_dir():
        raise InputError(f"{place} is not a folder; give the folder of the templates (sba_ga<week>_*_t2.nii.gz).")
    found = []
    for path in sorted(place.glob("sba_ga*_seg.nii.gz")):
        match = re.match(r"sba_ga(\d+)_", path.name)
        if match and float(match.group(1)) >= youngest_weeks:
            found.append((float(match.group(1)), path))
    if not found:
        raise InputError(
            f"{place} holds no template of {youngest_weeks:g} weeks or more; files are named "
            "sba_ga<week>_<kind>_t2.nii.gz and sba_ga<week>_<kind>_seg.nii.gz."
        )
    atlases = tuple(_atlas(weeks, path) for weeks, path in found)
    heads = [path for path in sorted(place.glob("epi_head_*.nii.gz")) if not path.name.endswith("_brain.nii.gz")]
    if not heads:
        return TemplateFiles(atlases, None)
    head = read_volume(heads[0])
    brain = read_volume(heads[0].with_name(heads[0].name.replace(".nii.gz", "_brain.nii.gz")))
    _require_one_grid(head, brain)
    return TemplateFiles(atlases, (head, brain))


def _atlas(weeks: float, path: Path) -> tuple[Volume, Volume, float]:
    t2 = read_volume(path.with_name(path.name.replace("_seg.", "_t2.")))
    scan = open_scan(path)
    labels = Volume(scan.labels()[None].float(), scan.affine, name=scan.name)
    _require_one_grid(t2, labels)
    highest = int(labels.data.max())
    if highest > LABEL_COUNT or int(labels.data.min()) < 0:
        raise InputError(f"{path} has labels up to {highest}; tissues are 1 to {LABEL_COUNT}, background 0.")
    return t2.reorient("RAS"), labels.reorient("RAS"), weeks


def _require_one_grid(first: Volume, second: Volume) -> None:
    if first.shape != second.shape or float((first.affine - second.affine).abs().max()) > 0.01:
        raise InputError(f"{second.name} lies on another grid than {first.name}; write both on one.")
