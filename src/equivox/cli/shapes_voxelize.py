"""``equivox shapes voxelize``: meshes, point clouds and protein structures as fields on a cubic grid."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cyclopts import App

from equivox.cli.options import Run
from equivox.cli.speaking import MOST_REASONS, close_run, lost_lines, say

if TYPE_CHECKING:
    from equivox.tasks.shapes.voxelize import VoxelizeOutcome, VoxelizeRun


def register(app: App) -> None:
    """Add the command ``voxelize`` to the group ``shapes``."""
    app.command(voxelize, name="voxelize")


def voxelize(
    inputs: list[str],
    /,
    *,
    out: Path,
    side: int = 32,
    spacing: float | None = None,
    mode: Literal["surface", "occupancy", "points"] | None = None,
    supersample: int = 2,
    sigma_voxels: float = 0.5,
    atoms: Literal["ca", "elements"] = "ca",
    format: Literal["npz", "nii"] = "npz",
    run: Run | None = None,
) -> int:
    """Turn meshes, point clouds and protein structures into voxels.

    Writes a field per file (STEM.npz or STEM.nii.gz), its facts (STEM.json), voxels.csv and run.json. A file that
    cannot be used is listed with its reason.

    For example:

    equivox shapes voxelize chair.off --out voxels

    equivox shapes voxelize "proteins/*.cif" --out voxels --side 50 --spacing 2 --atoms elements --workers 4

    Parameters
    ----------
    inputs
        Meshes (off, obj, ply, stl), points (ply, xyz, npy), structures (pdb, cif), folders, or globs in quotes.
    out
        Output folder.
    side
        Voxels along each axis.
    spacing
        Edge of a voxel in the file's own unit; by default meshes and points fill the grid, structures get 2 Å.
    mode
        Fill a mesh, mark its surface, or blur its points; by default meshes are filled, all else is blurred.
    supersample
        Sub-voxels along each axis, so that a voxel holds the share that is filled.
    sigma_voxels
        Width (standard deviation) of a point's blur, in voxels.
    atoms
        Of a structure: its C-alpha atoms in one channel, or all heavy atoms in the channels C, N, O and S.
    format
        Arrays for NumPy, or NIfTI volumes for a viewer (the file's own unit counts as mm).
    run
        How the work is run.
    """
    from equivox.tasks.shapes.voxelize import voxelize_shapes
    from equivox.tasks.shapes.voxelize_one import VoxelizeConfig

    options = run or Run()
    config = VoxelizeConfig(
        side=side, spacing=spacing, mode=mode, supersample=supersample, sigma_voxels=sigma_voxels, atoms=atoms,
        format=format,
    )  # fmt: skip
    finished = voxelize_shapes(
        inputs, out, config, options.choice(), command=sys.argv,
        progress=None if options.quiet else _print_outcome,
    )  # fmt: skip
    return close_run(options, finished, _closing_lines)


def _print_outcome(done: int, total: int, outcome: VoxelizeOutcome) -> None:
    """One line on stderr per finished input."""
    line = f"[{done}/{total}] {outcome.entry.path.name}  {'kept' if outcome.resumed else outcome.status}"
    if outcome.result is not None:
        line += f"  {outcome.result.mode}  {outcome.result.filled:.1%} of {outcome.result.side}³ voxels"
    say([line])


def _closing_lines(finished: VoxelizeRun) -> list[str]:
    """Where the fields are, and what has none."""
    lost = sum(outcome.result is None for outcome in finished.outcomes)
    notes = [text for outcome in finished.outcomes if outcome.result for text in outcome.result.warnings]
    lines = [f"note: {text}" for text in notes[:10]]
    lines += [f"note: {len(notes) - 10} more in voxels.csv"] if len(notes) > 10 else []
    lines += lost_lines(finished.outcomes, "without a field")
    lines += [f"  and {lost - MOST_REASONS} more, in voxels.csv"] if lost > MOST_REASONS else []
    lines.append(f"results: {finished.out}")
    return lines
