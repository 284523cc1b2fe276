"""``equivox encode probe`` and ``robustness``: what codes know, and whether rotations change it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from equivox.cli.options import Output, Run
from equivox.cli.speaking import print_document, say

_FLAG = Parameter(negative="")
Layouts = Literal["auto", "bids", "adni", "oasis1", "oasis2", "oasis3", "ncanda", "csv"]


def probe(
    subjects: Path,
    embeddings: list[Path],
    /,
    *,
    out: Path,
    target: str = "age",
    kind: Literal["number", "class"] | None = None,
    folds: int = 5,
    repeats: int = 5,
    given_folds: bool = True,
    images: Path | None = None,
    layout: Layouts = "auto",
    resamples: int = 2000,
    seed: int = 0,
    output: Output | None = None,
) -> int:
    """Read a target out of codes by linear models, beside what trivial features give.

    Ridge for numbers, logistic regression for classes, nested cross-validation by people, bootstrap intervals; the same
    settings for every encoder. A constant, brain volume, an intensity histogram, tissue by depth and label volumes
    (columns ..._ml) are always printed too, and every code also together with tissue by depth. Writes probe.json,
    probe_predictions.csv, probe.html and run.json.

    For example:

    equivox encode probe participants.csv codes --out age --target age

    equivox encode probe bids codes other-codes --out sex --target sex --folds 10 --repeats 3 --json

    Parameters
    ----------
    subjects
        Who they are: a BIDS root, an ADNI, OASIS or NCANDA folder, or a CSV table with an id column.
    embeddings
        One or several folders of encode embed.
    out
        Output folder.
    target
        age, sex, diagnosis, or a column of the table.
    kind
        Whether the target is a number or a class, where its column does not say.
    folds
        Folds of the cross-validation.
    repeats
        Repetitions with other folds.
    given_folds
        Take the folds that the table's columns fold0, fold1, ... name.
    images
        Folder of the scans that a table names.
    layout
        What the subjects' folder or table is, where that cannot be told.
    resamples
        Draws of the bootstrap.
    seed
        Seed of folds and bootstrap.
    output
        How the command speaks.
    """
    from equivox.tasks.encode.probe import PAGE, ProbeConfig, probe_codes
    from equivox.tasks.encode.probe_page import probe_lines

    speak = output or Output()
    config = ProbeConfig(
        target=target, kind=kind, folds=folds, repeats=repeats, given_folds=given_folds, seed=seed,
        resamples=resamples, images=None if images is None else str(images), layout=layout,
    )  # fmt: skip
    found = probe_codes(subjects, embeddings, out, config, overwrite=speak.overwrite, command=sys.argv)
    if speak.json:
        print_document(found.as_dict())
    else:
        print("\n".join(probe_lines(found)))
    if not speak.quiet:
        say(closing_lines(found.notes, found.skipped, out / PAGE))
    return 0


def closing_lines(notes: tuple[str, ...], skipped: tuple[tuple[str, str], ...], page: Path) -> list[str]:
    """Notes, who was left out and why, and where the page is."""
    lines = [f"note: {text}" for text in notes[:20]]
    if skipped:
        lines.append(f"left out: {len(skipped)}")
        lines += [f"  {who}: {why}" for who, why in skipped[:20]]
        lines += [f"  and {len(skipped) - 20} more, all in run.json"] if len(skipped) > 20 else []
    return [*lines, f"page: {page}"]


def robustness(
    subjects: Path,
    /,
    *,
    out: Path,
    model: Annotated[list[str] | None, Parameter(negative="")] = None,
    target: str = "age",
    scans: int = 16,
    axes: int = 1,
    random_turns: int = 4,
    folds: int = 5,
    given_folds: bool = True,
    mask: str | None = None,
    brain_extracted: Annotated[bool, _FLAG] = False,
    images: Path | None = None,
    layout: Layouts = "auto",
    seed: int = 0,
    run: Run | None = None,
) -> int:
    """Turn heads by every 15 degrees and at random, and report what the codes do: the rotation report.

    A read-out of the target is fitted to codes of upright scans and asked about turned ones. Reports its error, E of
    the vectors and I of the invariants by angle, beside the resampling of the input and a predictor that never looks.
    Writes robustness.json, robustness.csv, robustness.html and run.json.

    For example:

    equivox encode robustness participants.csv --out turned --target age --scans 16

    equivox encode robustness bids --out turned --target none --model my-encoder --model brain-encoder-t1 --axes 13

    Parameters
    ----------
    subjects
        Who they are: a BIDS root, an ADNI, OASIS or NCANDA folder, or a CSV table with an id column.
    out
        Output folder.
    model
        Name or folder of an encoder; several are compared.
    target
        age, sex, diagnosis, a column of the table, or none to measure E and I alone.
    scans
        How many scans are turned; with a target the others train the read-out, upright.
    axes
        Axes per scan and angle, of the 13 of the cube; scans take them in turn.
    random_turns
        Random rotations per scan.
    folds
        Folds: a scan is asked of a read-out that has not seen it.
    given_folds
        Take the folds that the table's columns fold0, fold1, ... name.
    mask
        Brain mask, or none where the data set has its own.
    brain_extracted
        You vouch that nothing but brain is left.
    images
        Folder of the scans that a table names.
    layout
        What the subjects' folder or table is, where that cannot be told.
    seed
        Seed of rotations and folds.
    run
        How the work is run.
    """
    from equivox.tasks.encode.config import DEFAULT_MODEL
    from equivox.tasks.encode.robustness import PAGE, RobustnessConfig, measure_robustness
    from equivox.tasks.encode.robustness_page import robustness_lines

    options = run or Run()
    config = RobustnessConfig(
        models=tuple(model or [DEFAULT_MODEL]), target=None if target.lower() == "none" else target, scans=scans,
        axes=axes, random_turns=random_turns, folds=folds, given_folds=given_folds, seed=seed, mask=mask,
        brain_extracted=brain_extracted, images=None if images is None else str(images), layout=layout,
    )  # fmt: skip
    report = measure_robustness(
        subjects, out, config, options.choice(), command=sys.argv, progress=None if options.quiet else _print_scan
    )
    if options.json:
        print_document(report.as_dict())
    else:
        print("\n".join(robustness_lines(report)))
    if not options.quiet:
        lost = (*((who, f"failed: {why}") for who, why in report.failed), *report.skipped)
        say(closing_lines(report.notes, lost, out / PAGE))
    return 1 if report.failed else 0


def _print_scan(done: int, total: int, text: str) -> None:
    say([f"[{done}/{total}] {text}"])
