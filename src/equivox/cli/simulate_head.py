"""``equivox simulate head``: stacks of fetal heads whose pose and masks are known."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from equivox.cli.options import Run
from equivox.cli.speaking import close_run, say

if TYPE_CHECKING:
    from equivox.tasks.simulate.head import HeadOutcome, HeadRun

PICTURE = Group("Picture", sort_key=5)
_ONE = Parameter(group=PICTURE, negative="")
_SWITCH = Parameter(group=PICTURE)
Range = tuple[float, float]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class HeadOptions:
    """What varies between stacks; None leaves the default."""

    modes: Annotated[tuple[float, float, float, float] | None, _ONE] = None
    """Shares of four appearances: median EPI head, T2 atlas, procedural, all random. [0.35 0.25 0.20 0.20]"""
    ga_weeks: Annotated[Range | None, _ONE] = None
    """Gestational age, from and to; sets the brain's size. [25 38]"""
    motion: Annotated[bool, _SWITCH] = True
    """Whether the head moves between slices and passes."""
    surroundings: Annotated[bool, _SWITCH] = True
    """Whether there are uterus, fluid, placenta, organs, fat and air."""
    bias: Annotated[bool, _SWITCH] = True
    """Whether there is coil shading."""
    noise_ratio: Annotated[Range | None, _ONE] = None
    """Brain over the noise's standard deviation, from and to. [11 24]"""
    pass_jump_deg: Annotated[float | None, _ONE] = None
    """Half-normal scale of the turn between the two interleaved passes. [9]"""
    cut_head: Annotated[float | None, _ONE] = None
    """Share of stacks whose field of view may cut the head. [0.1]"""
    thick_slices: Annotated[float | None, _ONE] = None
    """Share of 3 x 3 x 4.5 mm stacks; the others have 3 mm. [0.5]"""


def head(
    *,
    out: Path,
    count: int = 10,
    validation: int | None = None,
    seed: int = 0,
    templates: Path | None = None,
    options: HeadOptions | None = None,
    run: Run | None = None,
) -> int:
    """Simulate echo-planar stacks of fetal heads, with poses and masks, for equivox pose train.

    Writes training/ and validation/ (img, lab), annotations.csv, poses.csv, parameters.csv, parameters/, README.md and
    run.json. The same seed gives the same stacks, with any number of workers.

    For example:

    equivox simulate head --out heads --count 200 --workers 4

    equivox simulate head --out still --count 20 --no-motion --seed 7 --json

    Parameters
    ----------
    out
        Output folder.
    count
        Stacks for training.
    validation
        Further stacks for validation. [a fifth of --count]
    seed
        Seed of everything random.
    templates
        Folder of sba_ga<week>_*_t2.nii.gz and _seg.nii.gz, with or without epi_head_*.nii.gz. [those of the package]
    options
        What varies.
    run
        How the work is run.
    """
    from equivox.simulate.stack_config import StackSimulation
    from equivox.tasks.simulate.head import simulate_heads_to_files

    speak = run or Run()
    config = StackSimulation(**_values(options or HeadOptions()))  # type: ignore[arg-type]
    finished = simulate_heads_to_files(
        out, config, speak.choice(), count=count, seed=seed, templates=templates, command=sys.argv,
        validation=max(count // 5, 1) if validation is None else validation,
        progress=None if speak.quiet else _print_outcome,
    )  # fmt: skip
    return close_run(speak, finished, _closing_lines)


def _values(options: HeadOptions) -> dict[str, object]:
    """Fields of the configuration by name."""
    names = {"modes": "mode_weights", "ga_weeks": "gestational_age_weeks"}
    found = {names.get(field.name, field.name): getattr(options, field.name) for field in fields(options)}
    return {name: value for name, value in found.items() if value is not None}


def _print_outcome(done: int, total: int, outcome: HeadOutcome) -> None:
    """One line on stderr per finished stack."""
    state = "failed" if outcome.result is None else "kept" if outcome.resumed else "made"
    line = f"[{done}/{total}] {outcome.job.id}  {state}"
    if outcome.result is not None:
        row = outcome.result.row
        line += f"  {row['mode']}  {row['nx']}x{row['ny']}x{row['nz']}  {row['ga_weeks']:.1f} weeks"
    say([line])


def _closing_lines(finished: HeadRun) -> list[str]:
    """Where the stacks are, and what was not made."""
    lost = [outcome for outcome in finished.outcomes if outcome.result is None]
    lines = [f"note: {text}" for text in finished.warnings]
    lines += [f"  {outcome.job.id}: {outcome.reason}" for outcome in lost[:20]]
    lines.append(f"{len(finished.outcomes) - len(lost)} stacks ({finished.device.device}): {finished.out}")
    return lines
