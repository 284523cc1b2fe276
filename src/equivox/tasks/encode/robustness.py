"""`equivox encode robustness`: what a target's read-out, the vectors and the invariants do when the head turns.

A read-out is fitted to codes of upright scans (those of other folds) and asked about turned ones: by every 15 degrees
about the 13 axes of the cube (3 faces, 4 diagonals, 6 edges) and by rotations uniform on SO(3). Every turned brain is
sampled once from its own grid. Beside it: the change of the input by resampling alone, and a predictor that never
looks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

import equivox
from equivox.errors import ConfigError, InputError
from equivox.formats.atomic import write_json
from equivox.formats.markers import digest_of, marker_path, read_marker
from equivox.formats.subjects import Subject, read_subject_table
from equivox.geometry.rotations import random_rotations, rotation_from_vector
from equivox.nets.brain_code import BrainCode
from equivox.run.batch import RunChoice, clear_the_way, run_items
from equivox.run.device import choose_device
from equivox.run.items import ItemResult
from equivox.run.record import RUN_JSON, RunRecord, file_sha256
from equivox.run.seeds import generator_for
from equivox.tasks.encode.data import open_brain
from equivox.tasks.encode.model import EncodeModel, load_encode_model, require_encoder
from equivox.tasks.encode.verify import code_errors, resampling_floor
from equivox.weights.folder import find_model

ANGLES_DEG = tuple(range(15, 181, 15))
TURNED_JSON, TABLE_CSV, PAGE = "robustness.json", "robustness.csv", "robustness.html"
SCHEMA = "equivox.encode.turned/1"
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class RobustnessConfig:
    """What is turned, how often, and what is read out."""

    models: tuple[str, ...]
    target: str | None = "age"
    """None measures E and I alone."""
    scans: int = 16
    """Scans that are turned, evenly from those with the target; the others only train the read-out, upright."""
    axes: int = 1
    """Axes per scan and angle, of the 13; scans take them in turn, so that all are covered. 13 takes all for each."""
    random_turns: int = 4
    """Rotations uniform on SO(3) per scan."""
    folds: int = 5
    given_folds: bool = True
    seed: int = 0
    resamples: int = 2000
    mask: str | None = None
    brain_extracted: bool = False
    images: str | None = None
    layout: str = "auto"

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not self.models:
            raise ConfigError("no model was given; name one or more by --model.")
        for name, value, low, high in (
            ("--scans", self.scans, 2, 10**9),
            ("--axes", self.axes, 1, 13),
            ("--random-turns", self.random_turns, 1, 10**6),
        ):
            if not low <= value <= high:
                raise ConfigError(f"{name} is {value}; it must be {low} to {high}.")

    def as_dict(self) -> dict[str, object]:
        """For the run record."""
        return {**asdict(self), "models": list(self.models)}


@dataclass(frozen=True)
class Turn:
    """One orientation of one scan: by which angle about which axis (-1: a random rotation), and what came of it."""

    angle_deg: float
    axis: int
    floor: float
    E: tuple[float, ...]
    scalars: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class TurnedScan:
    """Codes of one scan, upright and (where it was chosen) turned, by every model.

    Parameters
    ----------
    upright
        Invariants by model.
    turns
        Orientations; empty for scans that only train the read-out.
    """

    name: str
    upright: tuple[tuple[float, ...], ...]
    turns: tuple[Turn, ...]
    histogram: tuple[float, ...]
    volume_ml: float
    sha256: str


@dataclass(frozen=True)
class TurnJob:
    """One scan with everything that its worker needs to know."""

    subject: Subject
    index: int
    turned: int
    """Position among the turned scans; -1 for one that stays upright."""
    out: Path
    config: RobustnessConfig
    digest: str


def cube_axes() -> Float[Tensor, "13 3"]:
    """The 13 axes of the cube: 3 through faces, 4 through corners, 6 through edges; unit vectors."""
    faces = [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
    corners = [(1, 1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, -1)]
    edges = [(1, 1, 0), (1, -1, 0), (1, 0, 1), (1, 0, -1), (0, 1, 1), (0, 1, -1)]
    axes = torch.tensor([*faces, *corners, *edges], dtype=torch.float64)
    return axes / axes.norm(dim=1, keepdim=True)


def turns_of(job: TurnJob) -> list[tuple[float, int, Float[Tensor, "3 3"]]]:
    """Orientations of one turned scan: (angle, axis, rotation). Axes are taken in turn over scans and angles."""
    found: list[tuple[float, int, Tensor]] = []
    axes = cube_axes()
    for number, angle in enumerate(ANGLES_DEG):
        for step in range(job.config.axes):
            axis = (job.turned * job.config.axes + number * 5 + step) % len(axes)
            vector = axes[axis] * torch.deg2rad(torch.tensor(float(angle), dtype=torch.float64))
            found.append((float(angle), axis, rotation_from_vector(vector)))
    generator = generator_for(job.config.seed, "turns", job.turned)
    for turn in random_rotations(job.config.random_turns, generator=generator):
        found.append((float("nan"), -1, turn))
    return found


def turn_scan(models: list[EncodeModel], job: TurnJob) -> TurnedScan:
    """Encode one scan, upright and turned, with every model; writes its marker."""
    assert job.subject.path is not None
    upright: list[BrainCode] = []
    turns: list[Turn] = []
    first = open_source(models[0], job)
    sources = [first if _same_grid(model, models[0]) else open_source(model, job) for model in models]
    stills = [source.sample(side=model.side) for model, source in zip(models, sources, strict=True)]
    for model, still in zip(models, stills, strict=True):
        upright.append(model.code([still]))
    if job.turned >= 0:
        for angle, axis, turn in turns_of(job):
            errors, scalars, floor = [], [], 0.0
            for number, (model, source) in enumerate(zip(models, sources, strict=True)):
                turned = source.sample(side=model.side, turn=turn)
                code = model.code([turned])
                errors.append(code_errors(upright[number], code, turn)[0])
                scalars.append(tuple(code.scalars[0].tolist()))
                if number == 0:
                    floor = resampling_floor(stills[0].volume, turned.volume, turn)
            turns.append(Turn(angle, axis, floor, tuple(errors), tuple(scalars)))
    result = TurnedScan(
        job.subject.name,
        tuple(tuple(code.scalars[0].tolist()) for code in upright),
        tuple(turns),
        tuple(first.histogram.tolist()),
        first.volume_ml,
        file_sha256(job.subject.path),
    )
    _write_marker(job, result)
    return result


def open_source(model: EncodeModel, job: TurnJob) -> Any:
    """The scan of a job for a model's grid."""
    assert job.subject.path is not None
    return open_brain(
        job.subject.path,
        mask=job.config.mask or job.subject.mask,
        brain_extracted=job.config.brain_extracted,
        voxel_size_mm=model.voxel_size_mm,
    )


def _same_grid(first: EncodeModel, second: EncodeModel) -> bool:
    return first.voxel_size_mm == second.voxel_size_mm


def load_models(paths: Sequence[str], device: str) -> list[EncodeModel]:
    """Every model, in order."""
    return [load_encode_model(path, device) for path in paths]


def measure_robustness(
    subjects_root: Path,
    out: Path,
    config: RobustnessConfig,
    run: RunChoice | None = None,
    *,
    command: Sequence[str] = ("equivox", "encode", "robustness"),
    progress: Progress | None = None,
) -> Any:
    """Turn scans, encode them, and write ``robustness.json``, ``robustness.csv``, a page and ``run.json``.

    Raises
    ------
    InputError
        If the subjects cannot be read, or too few have the target and a usable scan.
    OutputError
        If results are there already, or the folder cannot be written.
    ModelFolderError
        If a model is missing, broken, or of another task.
    Interrupted
        A KeyboardInterrupt; with ``--resume`` the finished scans are kept.
    """
    from equivox.formats.atomic import write_text
    from equivox.tasks.encode.robustness_page import render_robustness
    from equivox.tasks.encode.robustness_result import as_table, summarise
    from equivox.tasks.encode.targets import Targets, read_targets

    run = run or RunChoice()
    device = choose_device(run.device)
    folders = [find_model(name) for name in config.models]
    for folder in folders:
        require_encoder(folder)
    table = read_subject_table(subjects_root, images=config.images, layout=cast(Any, config.layout))
    targets: Targets | None = None
    chosen = [subject for subject in table.subjects if subject.path is not None]
    skipped = [*table.skipped]
    if config.target is not None:
        targets = read_targets(chosen, config.target)
        skipped += targets.skipped
        chosen = [chosen[index] for index in targets.chosen]
    clear_the_way(out, (TURNED_JSON, TABLE_CSV, PAGE), run)
    few = [round(step * (len(chosen) - 1) / max(config.scans - 1, 1)) for step in range(min(config.scans, len(chosen)))]
    place = {index: number for number, index in enumerate(dict.fromkeys(few))}
    kept = range(len(chosen)) if targets is not None else sorted(place)
    decides = {
        "models": [folder.sha256 for folder in folders], "axes": config.axes, "random": config.random_turns,
        "seed": config.seed, "mask": config.mask, "brain": config.brain_extracted, "version": equivox.__version__,
    }  # fmt: skip
    jobs = [
        TurnJob(
            chosen[index], index, place.get(index, -1), out, config,
            digest_of({**decides, "scan": str(chosen[index].path), "place": place.get(index, -1)}),
        )
        for index in kept
    ]  # fmt: skip
    record = RunRecord(command, {**config.as_dict(), **run.as_dict()}, seed=config.seed, device=device.as_dict())
    record.add("models", [one.as_dict() for one in folders])
    done_count = 0

    def done(result: ItemResult[TurnedScan]) -> None:
        nonlocal done_count
        done_count += 1
        if progress is not None:
            state = "failed" if result.failure else "kept" if result.resumed else "done"
            progress(done_count, len(jobs), f"{jobs[result.index].subject.name}  {state}")

    results = run_items(
        turn_scan,
        jobs,
        initializer=functools.partial(load_models, [str(one.path) for one in folders], str(device.device)),
        run=run, out=out, record=record, earlier=_earlier, on_done=done,
    )  # fmt: skip
    good = [(jobs[one.index], one.value) for one in results if one.value is not None]
    failed = [(jobs[one.index], one.failure) for one in results if one.failure is not None]
    for job, failure in failed:
        record.add_failure(job.subject.name, failure.code, failure.reason)
    for job, value in good:
        record.add_input(str(job.subject.path), sha256=value.sha256)
    if len(good) < 2 or not any(value.turns for _, value in good):
        record.write(out / RUN_JSON, "nothing_done")
        raise InputError(
            f"{len(good)} of {len(jobs)} scans could be encoded; a report needs two"
            + (f" (the first failure: {failed[0][1].reason})." if failed else ".")
        )
    called = [one.name for one in folders]
    titles = [one.name if called.count(one.name) == 1 else one.path.name for one in folders]
    with record.timed("report"):
        report = summarise(
            config, titles, [job.subject for job, _ in good], [value for _, value in good],
            failed=[(job.subject.name, failure.reason) for job, failure in failed],
            skipped=skipped, notes=table.notes,
        )  # fmt: skip
        write_json(out / TURNED_JSON, report.as_dict())
        write_text(out / TABLE_CSV, as_table(report))
        write_text(out / PAGE, render_robustness(report))
    for text in report.notes:
        record.add_warning(text)
    record.write(out / RUN_JSON, "some_failed" if failed else "done")
    return report


def _marker(job: TurnJob) -> Path:
    return marker_path(job.out, f"{job.index:05d}")


def _write_marker(job: TurnJob, result: TurnedScan) -> None:
    turns = [{**asdict(turn), "angle_deg": None if turn.axis < 0 else turn.angle_deg} for turn in result.turns]
    write_json(_marker(job), {"schema": SCHEMA, "digest": job.digest, **asdict(result), "turns": turns})


def _earlier(job: TurnJob) -> TurnedScan | None:
    """An earlier whole result of the same scan under the same models and options."""
    return read_marker(_marker(job), SCHEMA, functools.partial(_as_result, job))


def _as_result(job: TurnJob, found: Any) -> TurnedScan | None:
    if found["digest"] != job.digest or job.subject.path is None or file_sha256(job.subject.path) != found["sha256"]:
        return None
    turns = tuple(
        Turn(
            float("nan") if one["angle_deg"] is None else float(one["angle_deg"]), int(one["axis"]),
            float(one["floor"]), tuple(one["E"]), tuple(tuple(row) for row in one["scalars"]),
        )
        for one in found["turns"]
    )  # fmt: skip
    return TurnedScan(
        found["name"], tuple(tuple(row) for row in found["upright"]), turns, tuple(found["histogram"]),
        float(found["volume_ml"]), found["sha256"],
    )  # fmt: skip
