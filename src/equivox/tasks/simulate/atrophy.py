"""`equivox simulate atrophy`: brains with synthetic atrophy of known severity, and the controls that belong to them.

Synthetic: the column ``synthetic`` is 1 in every row, every file's name ends with ``_synthetic``. Every severity goes
through the same interpolation, with a random shift below half a voxel. Severities are balanced, one for each subject,
so that nobody is in two classes; or all for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from equivox import __version__
from equivox.errors import ConfigError, InputError, OutputError
from equivox.formats.atomic import write_json, write_text
from equivox.formats.markers import digest_of
from equivox.formats.nifti import without_ending
from equivox.formats.scans import ScanInput, find_scans
from equivox.formats.subjects import read_subject_table
from equivox.formats.tables import records_as_csv
from equivox.metrics.class_intervals import ClassNumbers, class_numbers
from equivox.metrics.folds import grouped_folds
from equivox.metrics.grouped import draw_groups
from equivox.metrics.probing import fit_logistic, predicted_classes
from equivox.run.batch import RunChoice, clear_the_way, close_record, run_items
from equivox.run.items import ItemResult
from equivox.run.record import RunRecord, file_sha256
from equivox.run.seeds import generator_for
from equivox.simulate.atrophy import SEVERITIES
from equivox.tasks.simulate.atrophy_labels import read_scheme
from equivox.tasks.simulate.atrophy_one import UNTOUCHED, AtrophyJob, MadeBrain, earlier_brain, make_brain

TABLE, CONTROLS, README = "atrophy.csv", "controls.json", "README.md"
FEWEST = 20
"""Fewer brains in a comparison make no control."""


@dataclass(frozen=True, kw_only=True)
class AtrophyConfig:
    """What is made."""

    labels: str
    """Label map, or a folder with one per scan."""
    scheme: str = "ten"
    severities: tuple[int, ...] = (0, 2)
    each: bool = False
    """Every severity for every brain; else one for each subject, balanced."""
    untouched: bool = False
    """A further group that is not resampled at all."""
    write_labels: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        wrong = [one for one in self.severities if not 0 <= one < len(SEVERITIES)]
        if wrong or not self.severities:
            raise ConfigError(f"--severities holds {wrong or 'nothing'}; they are 0 to {len(SEVERITIES) - 1}.")
        if len(set(self.severities)) < len(self.severities):
            raise ConfigError(f"--severities {' '.join(map(str, self.severities))} names one twice.")

    @property
    def groups(self) -> tuple[int, ...]:
        """Severities, and the untouched group where it is asked for."""
        return (*self.severities, *((UNTOUCHED,) if self.untouched else ()))


@dataclass(frozen=True)
class AtrophyRun:
    """A finished run."""

    out: Path
    made: tuple[MadeBrain, ...]
    failed: tuple[tuple[str, str, str], ...]
    controls: tuple[dict[str, Any], ...]
    warnings: tuple[str, ...]
    resumed: int

    @property
    def exit_code(self) -> int:
        """0: all are written; 1: some; 2: none could be written; 3: none could be made."""
        if self.made:
            return 1 if self.failed else 0
        return 2 if any(code == OutputError.code for _, code, _ in self.failed) else 3

    def as_dict(self) -> dict[str, object]:
        """The document of ``--json`` (schema ``equivox.simulate.atrophy/1``)."""
        return {
            "schema": "equivox.simulate.atrophy/1",
            "version": __version__,
            "synthetic": True,
            "out": str(self.out),
            "results": [dict(one.row) for one in self.made],
            "controls": list(self.controls),
            "warnings": list(self.warnings),
            "errors": [{"input": name, "code": code, "message": reason} for name, code, reason in self.failed],
        }


Progress = Callable[[int, int, str], None]


def simulate_atrophy_to_files(
    inputs: Sequence[str],
    out: Path,
    config: AtrophyConfig,
    run: RunChoice | None = None,
    *,
    images: Path | None = None,
    command: Sequence[str] = ("equivox", "simulate", "atrophy"),
    progress: Progress | None = None,
) -> AtrophyRun:
    """Make brains with synthetic atrophy, ``atrophy.csv``, the controls, ``README.md`` and ``run.json``.

    Raises
    ------
    InputError
        If no input is given, or a table or the label scheme is broken.
    OutputError
        If results are there already, or the folder cannot be written.
    """
    codes = read_scheme(config.scheme)
    brains = _brains(inputs, images)
    if not Path(config.labels).expanduser().is_dir() and len(brains) > 1:
        raise ConfigError(
            f"--labels {config.labels} is no folder and there are {len(brains)} brains; give a folder with all maps."
        )
    run = run or RunChoice()
    clear_the_way(out, (TABLE, CONTROLS, README), run)
    jobs = [
        AtrophyJob(scan, subject, severity, config.labels, codes, out, config.seed, config.write_labels,
                   _digest(scan, severity, config))
        for scan, subject, severity in _plan(brains, config)
    ]  # fmt: skip
    record = RunRecord(command, {**asdict(config), "workers": run.workers, "resume": run.resume}, seed=config.seed)
    done: dict[int, ItemResult[MadeBrain]] = {}

    def on_done(result: ItemResult[MadeBrain]) -> None:
        done[result.index] = result
        if progress is not None:
            state = "failed" if result.failure else "kept" if result.resumed else "made"
            progress(len(done), len(jobs), f"{jobs[result.index].stem}  {state}")

    def finish() -> AtrophyRun:
        finished = _collect(out, jobs, done, config)
        _write(finished, jobs, record, config)
        return finished

    run_items(
        make_brain, jobs, initializer=_nothing, run=run, out=out, record=record, earlier=earlier_brain,
        on_done=on_done, on_interrupt=finish, timing="brains",
    )  # fmt: skip
    finished = finish()
    close_record(record, out, finished.exit_code)
    return finished


def _nothing() -> None:
    """Workers need no state."""


def _brains(inputs: Sequence[str], images: Path | None) -> list[tuple[ScanInput, str]]:
    """Scans and whose they are."""
    found: list[tuple[ScanInput, str]] = []
    if not inputs:
        raise InputError("No input was given; name brain-extracted scans, folders, or a CSV table.")
    for text in inputs:
        if Path(text).suffix.lower() in (".csv", ".tsv"):
            table = read_subject_table(text, images=images)
            for subject in table.subjects:
                if subject.path is not None:
                    found.append((ScanInput(subject.path, without_ending(subject.path.name)), subject.id))
        else:
            found += [(scan, scan.stem) for scan in find_scans([text])]
    return found


def _plan(brains: Sequence[tuple[ScanInput, str]], config: AtrophyConfig) -> list[tuple[ScanInput, str, int]]:
    """Which brain gets which severity: all, or one for each subject with equal numbers (up to one)."""
    groups = config.groups
    if config.each:
        return [(scan, subject, severity) for scan, subject in brains for severity in groups]
    people = list(dict.fromkeys(subject for _, subject in brains))
    order = torch.randperm(len(people), generator=generator_for(config.seed, "severities")).tolist()
    chosen = {people[place]: groups[number % len(groups)] for number, place in enumerate(order)}
    return [(scan, subject, chosen[subject]) for scan, subject in brains]


def _digest(scan: ScanInput, severity: int, config: AtrophyConfig) -> str:
    parts = {
        "scan": scan.name, "sha256": file_sha256(scan.path) if scan.path.is_file() else "", "severity": severity,
        "seed": config.seed, "labels": config.labels, "scheme": config.scheme, "write": config.write_labels,
        "version": __version__,
    }  # fmt: skip
    return digest_of(parts)


def _collect(
    out: Path, jobs: Sequence[AtrophyJob], done: dict[int, ItemResult[MadeBrain]], config: AtrophyConfig
) -> AtrophyRun:
    ordered = [done[index] for index in sorted(done)]
    made = tuple(one.value for one in ordered if one.value is not None)
    failed = tuple(
        (jobs[one.index].scan.name, one.failure.code, one.failure.reason) for one in ordered if one.failure is not None
    )
    warnings = tuple(dict.fromkeys(text for one in made for text in one.warnings))
    return AtrophyRun(out, made, failed, tuple(controls(made, config)), warnings, sum(one.resumed for one in ordered))


def controls(made: Sequence[MadeBrain], config: AtrophyConfig) -> list[dict[str, Any]]:
    """What must hold for the task to mean anything, as areas under the ROC curve by nested cross-validation.

    Severity 0 against untouched copies: whether resampling gives labels away. Per severity against 0: blur alone and
    the histogram alone, which must not solve the task better than the volumes that it is about (ventricles and
    hippocampus over the intracranial volume), the line to beat.
    """
    found = []
    by_severity: dict[object, list[MadeBrain]] = {}
    for one in made:
        by_severity.setdefault(one.row["severity"], []).append(one)
    plans = [
        ("untouched", "histogram", "resampling alone; chance is 0.5"),
        ("untouched", "sharpness", "what blur shows of resampling: why severity 0 is resampled too"),
    ]
    for severity in [one for one in config.severities if one]:
        plans += [
            (str(severity), "sharpness", "what blur shows of the severity"),
            (str(severity), "histogram", "what intensities alone give"),
            (str(severity), "volumes", "ventricles and hippocampus over ICV: the line to beat"),
        ]
    for name, feature, meaning in plans:
        other = by_severity.get(name if name == "untouched" else int(name), [])
        both = [*by_severity.get(0, []), *other]
        if len(other) < FEWEST // 2 or len(both) < FEWEST or len(both) == len(other):
            continue
        numbers = _separate(both, feature, config.seed)
        found.append(
            {"compared": f"severity 0 and {'untouched' if name == 'untouched' else f'severity {name}'}",
             "by": feature, "meaning": meaning, "brains": len(both), "synthetic": True,
             **numbers.as_dict()}
        )  # fmt: skip
    return found


def _separate(brains: Sequence[MadeBrain], feature: str, seed: int) -> ClassNumbers:
    """How well a logistic read-out of trivial features tells severity 0 from the others."""
    table = torch.tensor([_features(one, feature) for one in brains]).double()
    labels = torch.tensor([int(one.row["severity"] != 0) for one in brains])
    groups = [str(one.row["subject"]) for one in brains]
    folds = grouped_folds(groups, labels.double(), count=5, generator=generator_for(seed, "folds"), classes=True)
    scores, answers = torch.zeros(1, len(brains)).double(), torch.zeros(1, len(brains), dtype=torch.int64)
    for fold in range(5):
        test = folds == fold
        own = [group for group, held in zip(groups, test.tolist(), strict=True) if not held]
        draw = generator_for(seed, "inner", fold)
        output = fit_logistic(table[~test], labels[~test], own, classes=2, generator=draw).predict(table[test])
        scores[0, test], answers[0, test] = output[:, 0], predicted_classes(output)
    draws = draw_groups(groups, 1000, generator=generator_for(seed, "bootstrap"))
    return class_numbers(answers, scores, labels, classes=2, resamples=draws)


def _features(one: MadeBrain, name: str) -> tuple[float, ...]:
    if name != "volumes":
        return one.features[name]
    icv = float(one.row["icv_ml"])
    return float(one.row["ventricles_ml"]) / icv, float(one.row["hippocampus_ml"]) / icv


def _write(run: AtrophyRun, jobs: Sequence[AtrophyJob], record: RunRecord, config: AtrophyConfig) -> None:
    if run.made:
        write_text(run.out / TABLE, records_as_csv([one.row for one in run.made]))
        write_json(run.out / CONTROLS, {"synthetic": True, "controls": list(run.controls)})
        write_text(run.out / README, _readme(config))
    for job in jobs:
        record.add_input(job.scan.path, severity=job.severity)
    for name, code, reason in run.failed:
        record.add_failure(name, code, reason)
    for text in run.warnings:
        record.add_warning(text)
    record.add("controls", list(run.controls))
    record.add("synthetic", True)


def _readme(config: AtrophyConfig) -> str:
    amounts = "\n".join(f"| {k} | {a:g} | {b:g} | {c:g} |" for k, (a, b, c) in enumerate(SEVERITIES))
    return (
        "# Synthetic atrophy\n\n"
        "These brains are SYNTHETIC: healthy scans, deformed so that ventricles widen and hippocampi and the outer\n"
        "shell shrink. They say nothing about any disease. Every file's name ends with `_synthetic`, every row of\n"
        "`atrophy.csv` has `synthetic` = 1.\n\n"
        "| severity | ventricles [mm] | hippocampi [mm] | shell [mm] |\n| --- | --- | --- | --- |\n"
        f"{amounts}\n\n"
        f"Seed {config.seed}, severities {', '.join(map(str, config.severities))}, "
        f"{'all for each brain' if config.each else 'one for each subject'}. Every severity, 0 too, was resampled\n"
        "once with a random shift below half a voxel. `controls.json` says how well trivial features tell the groups\n"
        "apart.\n"
        "The licence of the scans holds for these copies too.\n"
    )
