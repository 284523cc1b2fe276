"""`equivox encode probe`: what linear read-outs find in codes, beside what trivial features give.

Ridge for numbers, logistic regression for classes, with nested cross-validation by people. Every encoder and every
trivial line goes through the same function with the same folds, penalties and seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

import equivox
from equivox.errors import ConfigError, InputError
from equivox.formats.atomic import require_absent, require_folder, write_json, write_text
from equivox.formats.subjects import Subject, SubjectTable, number_of, read_subject_table
from equivox.formats.tables import as_csv
from equivox.metrics.class_intervals import ClassNumbers, class_numbers
from equivox.metrics.folds import require_distinct
from equivox.metrics.grouped import Measured, draw_groups
from equivox.metrics.probing import LinearReadout, fit_logistic, fit_ridge, predicted_classes
from equivox.metrics.regression import RegressionNumbers, paired_difference, regression_numbers
from equivox.run.record import RunRecord
from equivox.run.seeds import generator_for
from equivox.tasks.encode.stored_codes import Codes, chosen_codes, complete, read_codes
from equivox.tasks.encode.targets import Kind, Targets, make_folds, read_targets

PROBE_JSON, PREDICTIONS_CSV, PAGE, RUN_JSON = "probe.json", "probe_predictions.csv", "probe.html", "run.json"
VOLUMES_NEEDED = 3


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """How codes are probed; the same for all."""

    target: str = "age"
    """``age``, ``sex``, ``diagnosis`` or a column of the table."""
    kind: Kind | None = None
    """Numbers or classes, where the column does not say."""
    folds: int = 5
    repeats: int = 5
    given_folds: bool = True
    """Take columns ``fold0``, ``fold1``, ... of the table where it has them."""
    seed: int = 0
    resamples: int = 2000
    """Draws of the bootstrap over people."""
    images: str | None = None
    layout: str = "auto"

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.repeats < 1:
            raise ConfigError(f"--repeats is {self.repeats}; it must be 1 or more.")

    def as_dict(self) -> dict[str, object]:
        """For the run record."""
        return asdict(self)


@dataclass(frozen=True)
class ProbeLine:
    """One predictor: its held-out answers in every repetition, and their numbers."""

    name: str
    trivial: bool
    features: int
    predicted: Float[Tensor, "repeat item"]
    numbers: RegressionNumbers | ClassNumbers
    against_best_trivial: Measured | None = None


@dataclass(frozen=True)
class Probe:
    """A finished probe."""

    config: ProbeConfig
    targets: Targets
    subjects: tuple[Subject, ...]
    folds: Int[Tensor, "repeat item"]
    folds_told: str
    lines: tuple[ProbeLine, ...]
    notes: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]

    def as_dict(self) -> dict[str, Any]:
        """The document of ``--json`` and ``probe.json`` (schema ``equivox.encode.probe/1``)."""
        return {
            "schema": "equivox.encode.probe/1",
            "version": equivox.__version__,
            "target": self.targets.name,
            "kind": self.targets.kind,
            "classes": list(self.targets.classes),
            "scans": len(self.subjects),
            "people": len({subject.id for subject in self.subjects}),
            "folds": self.folds_told,
            "results": [
                {
                    "name": line.name,
                    "trivial": line.trivial,
                    "features": line.features,
                    **line.numbers.as_dict(),
                    "mae_minus_best_trivial": None
                    if line.against_best_trivial is None
                    else line.against_best_trivial.as_dict(),
                }
                for line in self.lines
            ],
            "skipped": [{"who": who, "why": why} for who, why in self.skipped],
            "warnings": list(self.notes),
            "errors": [],
        }


def probe_codes(
    subjects_root: Path,
    embeddings: Sequence[Path],
    out: Path,
    config: ProbeConfig,
    *,
    overwrite: bool = False,
    command: Sequence[str] = ("equivox", "encode", "probe"),
) -> Probe:
    """Probe one or several folders of codes and write ``probe.json``, predictions, a page and ``run.json``.

    Raises
    ------
    InputError
        If tables do not fit, too few scans have the target, or folds leak.
    ConfigError
        If there is no such target.
    OutputError
        If results are there already, or the folder cannot be written.
    """
    from equivox.tasks.encode.probe_page import render_probe

    require_folder(out)
    require_absent([out / name for name in (PROBE_JSON, PREDICTIONS_CSV, PAGE, RUN_JSON)], overwrite=overwrite)
    record = RunRecord(command, {**config.as_dict(), "embeddings": [str(p) for p in embeddings]}, seed=config.seed)
    table = read_subject_table(subjects_root, images=config.images, layout=cast(Any, config.layout))
    with record.timed("probe"):
        probe = run_probe(table, embeddings, config)
    write_json(out / PROBE_JSON, probe.as_dict())
    write_text(out / PREDICTIONS_CSV, predictions_table(probe))
    write_text(out / PAGE, render_probe(probe))
    for path in embeddings:
        record.add_input(path)
    for text in probe.notes:
        record.add_warning(text)
    record.add("skipped", [{"who": who, "why": why} for who, why in probe.skipped])
    record.write(out / RUN_JSON, "done")
    return probe


def run_probe(table: SubjectTable, embeddings: Sequence[Path], config: ProbeConfig) -> Probe:
    """Probe without writing anything."""
    if not embeddings:
        raise ConfigError("no embeddings were given; name one or more folders of equivox encode embed.")
    read = [read_codes(path, table.subjects) for path in embeddings]
    has_code = [index for index in range(len(table.subjects)) if all(index in places for places, _ in read)]
    skipped = [*table.skipped]
    skipped += [
        (subject.name, "has no code in every embedding")
        for index, subject in enumerate(table.subjects)
        if index not in has_code
    ]
    if not has_code:
        raise InputError(
            f"none of the {len(table.subjects)} scans of {table.root} is in {embeddings[0]}; embed these files first."
        )
    with_code = [table.subjects[index] for index in has_code]
    targets = read_targets(with_code, config.target, kind=config.kind)
    subjects = tuple(with_code[index] for index in targets.chosen)
    codes = [chosen_codes(places, one, [has_code[i] for i in targets.chosen]) for places, one in read]
    groups = [subject.group or subject.id for subject in subjects]
    names = [subject.name for subject in subjects]
    require_distinct(codes[0].sha256, groups, names)
    folds, told = make_folds(
        with_code, targets, count=config.folds, repeats=config.repeats, seed=config.seed, given=config.given_folds
    )
    resamples = draw_groups(groups, config.resamples, generator=generator_for(config.seed, "bootstrap"))
    sets = trivial_features(subjects, targets, codes[0])
    lines: list[ProbeLine] = []
    own = [line for one in codes for line in ((one.name, one.features), *one.with_tissues)]
    for name, features, trivial in [*((n, f, True) for n, f in sets), *((n, f, False) for n, f in own)]:
        predicted, answers = held_out(features, targets, groups, folds, seed=config.seed)
        if targets.kind == "number":
            numbers: RegressionNumbers | ClassNumbers = regression_numbers(predicted, targets.values, resamples)
        else:
            numbers = class_numbers(
                answers, predicted, targets.labels, classes=len(targets.classes), resamples=resamples
            )
        lines.append(ProbeLine(name, trivial, features.shape[1], predicted, numbers))
    if targets.kind == "number":
        best = min((line for line in lines if line.trivial), key=_mae)
        lines = [
            line
            if line.trivial
            else ProbeLine(
                line.name, False, line.features, line.predicted, line.numbers,
                paired_difference(line.predicted, best.predicted, targets.values, resamples),
            )
            for line in lines
        ]  # fmt: skip
    notes = (*table.notes, *(note for one in codes for note in one.notes))
    return Probe(config, targets, subjects, folds, told, tuple(lines), notes, (*skipped, *targets.skipped))


def _mae(line: ProbeLine) -> float:
    return line.numbers.mae.value if isinstance(line.numbers, RegressionNumbers) else float("nan")


def held_out(
    features: Float[Tensor, "item feature"],
    targets: Targets,
    groups: Sequence[str],
    folds: Int[Tensor, "repeat item"],
    *,
    seed: int,
) -> tuple[Float[Tensor, "repeat item"], Int[Tensor, "repeat item"]]:
    """Held-out numbers (or scores of the second class) and classes in every repetition."""
    predicted = torch.zeros(folds.shape, dtype=torch.float64)
    answers = torch.zeros(folds.shape, dtype=torch.int64)
    for repeat, row in enumerate(folds):
        for fold in row.unique().tolist():
            test = row == fold
            output = fit_readout(features, targets, groups, ~test, seed=seed, repeat=repeat, fold=fold).predict(
                features[test]
            )
            predicted[repeat, test] = output[:, -1]
            if targets.kind == "class":
                answers[repeat, test] = predicted_classes(output)
    return predicted, answers


def fit_readout(
    features: Float[Tensor, "item feature"],
    targets: Targets,
    groups: Sequence[str],
    train: Tensor,
    *,
    seed: int,
    repeat: int = 0,
    fold: int = 0,
) -> LinearReadout:
    """The read-out of some scans; its inner folds depend on the seed, the repetition and the fold alone."""
    own = [group for group, kept in zip(groups, train.tolist(), strict=True) if kept]
    generator = generator_for(seed, "inner", repeat, fold)
    if targets.kind == "number":
        return fit_ridge(features[train], targets.values[train], own, generator=generator)
    return fit_logistic(features[train], targets.labels[train], own, classes=len(targets.classes), generator=generator)


def trivial_features(
    subjects: Sequence[Subject], targets: Targets, codes: Codes
) -> list[tuple[str, Float[Tensor, "item feature"]]]:
    """What anybody could read out without a network: nothing, volume, intensities, label volumes, age and sex."""
    sizes = torch.tensor(codes.volume_ml, dtype=torch.float64)
    sets = [
        ("constant", torch.zeros(len(subjects), 1, dtype=torch.float64)),
        ("brain volume", torch.stack([sizes, sizes.log()], dim=1)),
        ("intensity histogram (24 bins)", torch.tensor(codes.histogram, dtype=torch.float64)),
    ]
    if complete(codes.tissues):
        shares = torch.tensor(codes.tissues, dtype=torch.float64)
        sets.append((f"tissue by depth ({shares.shape[1]})", shares))
    columns = [name for name in subjects[0].values if name.endswith("_ml") and name != targets.name]
    volumes = [[number_of(subject.values.get(name, "")) for name in columns] for subject in subjects]
    if len(columns) >= VOLUMES_NEEDED and all(one is not None and one > 0 for row in volumes for one in row):
        numbers = torch.tensor(volumes, dtype=torch.float64)
        ratios = numbers / numbers[:, :1]
        sets.append((f"label volumes ({len(columns)})", torch.cat([ratios[:, 1:], numbers.log()], dim=1)))
    if targets.kind == "class":
        known = [(subject.age, subject.sex) for subject in subjects]
        if targets.name != "sex" and all(age is not None and sex for age, sex in known):
            rows = [[age or 0.0, float(sex == "M")] for age, sex in known]
            sets.append(("age and sex", torch.tensor(rows, dtype=torch.float64)))
    return sets


def predictions_table(probe: Probe) -> str:
    """CSV text: one line per scan, held-out predictions averaged over repetitions, folds."""
    rows: list[list[object]] = []
    repeats = [f"fold{number}" for number in range(len(probe.folds))]
    header = ["id", "session", "input", probe.targets.name, *repeats, *(line.name for line in probe.lines)]
    classes = probe.targets.classes
    for place, subject in enumerate(probe.subjects):
        value = float(probe.targets.values[place])
        truth = classes[int(value)] if classes else f"{value:g}"
        folds = probe.folds[:, place].tolist()
        means = [f"{float(line.predicted[:, place].mean()):.6g}" for line in probe.lines]
        rows.append([subject.id, subject.session, str(subject.path), truth, *folds, *means])
    return as_csv(header, rows)
