"""The page beside simulated stacks: what lies where, what was drawn, from which ranges."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from equivox import __version__
from equivox.simulate.stack_config import StackSimulation

TEXT = """# Simulated stacks of fetal heads

Made by equivox {version} with seed {seed}: `{count}` stacks, every one simulated. Not for clinical use.

| where | what |
| --- | --- |
| `training/img`, `validation/img` | stacks, int16 NIfTI (world: RAS, mm) |
| `training/lab`, `validation/lab` | labels on the same grid: 1 brain, 2 eyes, as imaged (slice by slice) |
| `annotations.csv` | for `equivox pose train rotate`: angles (degrees) from array axes to head axes, and fold |
| `poses.csv` | for `equivox pose evaluate`: rotation (frame A to world, quaternion x y z w) and brain centre (mm) |
| `parameters.csv` | the main parameters of every stack, one row each |
| `parameters/ID.json` | all parameters of one stack, its seed, and the motion of every slice |
| `run.json` | command, ranges, versions, seed |

The pose is the mean over the slices that cut the brain, at the temporal middle of the motion. Frame A: x fetal right,
y anterior (30 degrees above the line to the eyes), z superior; its origin is the brain's centre.

    equivox pose train segment training/img training/lab validation/img validation/lab --out seg
    equivox pose train rotate training/img training/lab validation/img validation/lab annotations.csv --out rot

## Ranges

| parameter | value |
| --- | --- |
{ranges}

## Drawn

| parameter | lowest | median | highest |
| --- | --- | --- | --- |
{drawn}

{counts}

Templates: T2 atlases of fetuses with spina bifida (Fidon et al. 2021, CC0 1.0; not normal anatomy) and, in the mode
`epi`, the median of real EPI heads (stacks (c) 2019 Malte Hoffmann, BSD 2-Clause). That median is made from seven of
the thirteen fetuses of the public stacks: for a test on those stacks re-make it without the tested ones, or leave the
mode out.
"""
WORDS = ("mode", "geometry", "stored_as", "order", "fold")
KEYS = ("frame_id", "seed", "rot_x", "rot_y", "rot_z", "qx", "qy", "qz", "qw", "tx", "ty", "tz", *WORDS)


def readme(config: StackSimulation, rows: Sequence[Mapping[str, Any]], seed: int) -> str:
    """Text of the README."""
    ranges = [f"| {name} | {_shown(value)} |" for name, value in config.as_dict().items()]
    drawn = []
    for name in [name for name in (rows[0] if rows else {}) if name not in KEYS]:
        values = [float(row[name]) for row in rows]
        low, middle, high = min(values), statistics.median(values), max(values)
        drawn.append(f"| {name} | {low:.4g} | {middle:.4g} | {high:.4g} |")
    counts = [
        f"{name}: " + ", ".join(f"{key} {number}" for key, number in sorted(Counter(row[name] for row in rows).items()))
        for name in WORDS
        if rows
    ]
    return TEXT.format(
        version=__version__, seed=seed, count=len(rows), ranges="\n".join(ranges), drawn="\n".join(drawn),
        counts="\n".join(f"* {line}" for line in counts),
    )  # fmt: skip


def _shown(value: object) -> str:
    if isinstance(value, list):
        return " to ".join(f"{one:g}" for one in value) if len(value) == 2 else ", ".join(f"{one:g}" for one in value)
    return str(value)
