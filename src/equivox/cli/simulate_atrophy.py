"""``equivox simulate atrophy``: brains with synthetic atrophy of known severity."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from equivox.cli.options import Run
from equivox.cli.speaking import print_document, say

_FLAG = Parameter(negative="")
_NUMBERS = Parameter(consume_multiple=True, negative="")


def atrophy(
    inputs: list[str],
    /,
    *,
    labels: str,
    out: Path,
    scheme: str = "ten",
    severities: Annotated[list[int] | None, _NUMBERS] = None,
    each: Annotated[bool, _FLAG] = False,
    untouched: Annotated[bool, _FLAG] = False,
    write_labels: Annotated[bool, _FLAG] = False,
    images: Path | None = None,
    seed: int = 0,
    run: Run | None = None,
) -> int:
    """Make brains with SYNTHETIC atrophy: wider ventricles, smaller hippocampi and cortex, in known degrees.

    Needs brain-extracted scans and your own label maps of them (none ships). Severities 0 to 4 are balanced, one for
    each subject. Writes NAME_severityK_synthetic.nii.gz, atrophy.csv, controls.json, README.md and run.json. Synthetic
    data say nothing about a disease.

    For example:

    equivox simulate atrophy brains --labels segmentations --out atrophy --severities 0 2

    equivox simulate atrophy people.csv --labels aseg --scheme freesurfer --out atrophy --untouched --workers 4

    Parameters
    ----------
    inputs
        Brain-extracted NIfTI or MGH files, folders, globs in quotes, or a CSV table with an id column.
    labels
        Label map, or a folder with one per scan (NAME_seg.nii.gz), on the scans' grids.
    out
        Output folder.
    scheme
        What the labels' numbers mean: ten (our ten classes), freesurfer (aseg, SynthSeg), or a JSON file.
    severities
        Which of 0 to 4. [0 2]
    each
        Every severity for every brain, instead of one for each subject.
    untouched
        Add a group that is not resampled, for the control that severity 0 cannot be told from it.
    write_labels
        Also write the deformed label maps.
    images
        Folder of the scans that a table names.
    seed
        Seed of everything random.
    run
        How the work is run.
    """
    from equivox.tasks.simulate.atrophy import TABLE, AtrophyConfig, simulate_atrophy_to_files

    speak = run or Run()
    config = AtrophyConfig(
        labels=labels, scheme=scheme, severities=tuple(severities or (0, 2)), each=each, untouched=untouched,
        write_labels=write_labels, seed=seed,
    )  # fmt: skip
    finished = simulate_atrophy_to_files(
        inputs, out, config, speak.choice(), images=images, command=sys.argv,
        progress=None if speak.quiet else _print_brain,
    )  # fmt: skip
    if speak.json:
        print_document(finished.as_dict())
    else:
        for one in finished.controls:
            area = "–" if one["auc"] is None else f"{one['auc']:.2f}"
            print(f"control (synthetic): {one['compared']} by {one['by']}: ROC area {area} ({one['meaning']})")
    if not speak.quiet:
        lines = [f"note: {text}" for text in finished.warnings[:10]]
        lines += [f"failed: {'' if Path(name).name in reason else name + ': '}{reason}"
                  for name, _, reason in finished.failed[:20]]  # fmt: skip
        lines.append(f"{len(finished.made)} synthetic brains: {finished.out / TABLE}")
        say(lines)
    return finished.exit_code


def _print_brain(done: int, total: int, text: str) -> None:
    say([f"[{done}/{total}] {text}"])
