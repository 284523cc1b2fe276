"""`equivox encode embed`: from scans to ``embeddings.csv`` (or npz), ``run.json`` and, asked for, ``verify.csv``."""

from __future__ import annotations

import csv
import functools
import io
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

import equivox
from equivox.errors import ConfigError, EquivoxError, InputError, OutputError
from equivox.formats.atomic import require_absent, require_folder, write_text
from equivox.run.device import DeviceChoice, choose_device
from equivox.run.items import Interrupted, ItemResult, map_items
from equivox.run.record import Outcome, RunRecord, file_sha256
from equivox.tasks.encode.config import EmbedConfig, RunChoice
from equivox.tasks.encode.data import open_brain
from equivox.tasks.encode.inputs import EncodeInput, find_inputs, mask_of
from equivox.tasks.encode.model import EncodeModel, load_encode_model, require_encoder
from equivox.tasks.encode.results import (
    ITEMS,
    EmbeddingRow,
    InputResult,
    digest_of,
    marker_path,
    whole_result,
    write_embeddings_csv,
    write_embeddings_npz,
)
from equivox.tasks.encode.verify import Verified, verify_scan
from equivox.weights.folder import find_model

EMBEDDINGS, VERIFY_CSV, RUN_JSON = "embeddings", "verify.csv", "run.json"
EXIT_DONE, EXIT_SOME_FAILED, EXIT_NOTHING = 0, 1, 3


@dataclass(frozen=True)
class EmbedJob:
    """One input with everything that its worker needs to know."""

    entry: EncodeInput
    out: Path
    config: EmbedConfig
    digest: str


@dataclass(frozen=True)
class EmbedOutcome:
    """What became of one input: its result, or the failure's code and sentence."""

    entry: EncodeInput
    result: InputResult | None
    code: str = ""
    reason: str = ""
    resumed: bool = False

    @property
    def row(self) -> EmbeddingRow:
        """Its line of the table."""
        return EmbeddingRow(self.entry.scan.name, self.result, self.reason)


@dataclass(frozen=True)
class EmbedRun:
    """A finished run."""

    out: Path
    config: EmbedConfig
    model: dict[str, str]
    device: DeviceChoice
    outcomes: tuple[EmbedOutcome, ...]
    notes: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]

    @property
    def table(self) -> Path:
        """Where the embeddings are."""
        return self.out / f"{EMBEDDINGS}.{self.config.format}"

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences about the scans, each with its scan's name."""
        return tuple(
            text if outcome.entry.scan.path.name in text else f"{outcome.entry.scan.name}: {text}"
            for outcome in self.outcomes
            if outcome.result is not None
            for text in outcome.result.embedding.warnings
        )

    @property
    def verified(self) -> list[tuple[str, Verified]]:
        """Measurements of ``--verify`` by input."""
        return [
            (outcome.entry.scan.name, outcome.result.verified)
            for outcome in self.outcomes
            if outcome.result is not None and outcome.result.verified is not None
        ]

    @property
    def exit_code(self) -> int:
        """0: every input was encoded; 1: some were not; 2: nothing could be written; 3: nothing could be used."""
        lost = [outcome for outcome in self.outcomes if outcome.result is None]
        if not lost:
            return EXIT_DONE
        if len(lost) < len(self.outcomes):
            return EXIT_SOME_FAILED
        return OutputError.exit_code if any(outcome.code == OutputError.code for outcome in lost) else EXIT_NOTHING

    def as_dict(self) -> dict[str, object]:
        """The document of ``--json`` (schema ``equivox.encode.run/1``); the numbers are in the table."""
        return {
            "schema": "equivox.encode.run/1",
            "version": equivox.__version__,
            "out": str(self.out),
            "table": str(self.table),
            "device": self.device.as_dict(),
            "model": self.model,
            "results": [
                {
                    "input": one.entry.scan.name,
                    "status": one.row.status,
                    "reason": one.row.reason or ("" if one.result is None else one.result.reason),
                    "confidence": None if one.result is None else round(one.result.embedding.confidence, 6),
                    "verified": None
                    if one.result is None or one.result.verified is None
                    else one.result.verified.as_dict(),
                    "resumed": one.resumed,
                }
                for one in self.outcomes
            ],
            "skipped": [{"who": who, "why": why} for who, why in self.skipped],
            "warnings": [*self.notes, *self.warnings],
            "errors": [
                {"input": one.entry.scan.name, "code": one.code, "message": one.reason}
                for one in self.outcomes
                if one.result is None
            ],
        }


Progress = Callable[[int, int, EmbedOutcome], None]


def embed_scans(
    inputs: Sequence[str | Path],
    out: Path,
    config: EmbedConfig,
    run: RunChoice | None = None,
    *,
    command: Sequence[str] = ("equivox", "encode", "embed"),
    progress: Progress | None = None,
) -> EmbedRun:
    """Encode every scan.

    Parameters
    ----------
    inputs
        Files, folders, globs, BIDS roots, data sets of a known layout, CSV tables.
    out
        Output folder.
    config
        Model, masks, format, verification.
    run
        Device, workers, resume, overwrite.
    command
        The command line, for the run record.
    progress
        Called with (done, total, outcome) as inputs finish.

    Raises
    ------
    InputError
        If no input is given, or a table among them is broken.
    OutputError
        If results are there already (without resume or overwrite), or the folder cannot be written.
    ModelFolderError
        If the model is missing, broken, or of another task.
    Interrupted
        A KeyboardInterrupt after what was finished has been written.
    """
    run = run or RunChoice()
    device = choose_device(run.device)
    folder = find_model(config.model)
    require_encoder(folder)
    found = find_inputs(inputs, images=config.images, layout=config.layout)
    if not found.entries:
        raise InputError(f"none of the inputs holds a scan; {len(found.skipped)} rows of tables have none.")
    if config.mask is not None and not Path(config.mask).expanduser().is_dir() and len(found.entries) > 1:
        raise ConfigError(
            f"--mask {config.mask} is one file and there are {len(found.entries)} inputs; give a folder with a mask "
            f"per scan."
        )
    require_folder(out)
    if run.overwrite and not run.resume:
        shutil.rmtree(out / ITEMS, ignore_errors=True)
    else:
        names = (f"{EMBEDDINGS}.csv", f"{EMBEDDINGS}.npz", VERIFY_CSV, RUN_JSON, ITEMS)
        require_absent([out / name for name in names], overwrite=run.resume)
    named = {"name": folder.name, "sha256": folder.sha256, "path": str(folder.path)}
    decides = {**config.decides(), "model": folder.sha256, "version": equivox.__version__}
    jobs = [EmbedJob(entry, out, config, _digest(entry, config, decides)) for entry in found.entries]
    record = RunRecord(command, {**config.as_dict(), **run.as_dict()}, seed=config.seed, device=device.as_dict())
    record.add("model", named)
    outcomes: dict[int, EmbedOutcome] = {}

    def done(result: ItemResult[InputResult]) -> None:
        outcome = _outcome(jobs[result.index], result)
        outcomes[result.index] = outcome
        if progress is not None:
            progress(len(outcomes), len(jobs), outcome)

    def finish() -> EmbedRun:
        ordered = tuple(outcomes[index] for index in sorted(outcomes))
        finished = EmbedRun(out, config, named, device, ordered, found.notes, found.skipped)
        _write(finished, record)
        return finished

    try:
        with record.timed("inputs"):
            map_items(
                embed_input,
                jobs,
                initializer=functools.partial(load_encode_model, folder.path, str(device.device)),
                workers=run.workers,
                scheduler=run.scheduler,
                threads=run.threads,
                resume=_earlier if run.resume else None,
                on_done=done,
            )
    except Interrupted:
        finish()
        record.write(out / RUN_JSON, "interrupted")
        raise
    finished = finish()
    endings: dict[int, Outcome] = {EXIT_DONE: "done", EXIT_SOME_FAILED: "some_failed"}
    record.write(out / RUN_JSON, endings.get(finished.exit_code, "nothing_done"))
    return finished


def embed_input(model: EncodeModel, job: EmbedJob) -> InputResult:
    """Encode one scan and write its marker; a scan that cannot be used raises."""
    scan = job.entry.scan
    if scan.problem:
        raise InputError(scan.problem)
    started = time.perf_counter()
    source = open_brain(
        scan.path,
        mask=mask_of(job.entry, job.config.mask),
        brain_extracted=job.config.brain_extracted,
        voxel_size_mm=model.voxel_size_mm,
    )
    brain = source.sample(side=model.side)
    loading = time.perf_counter() - started
    embedding = model.embed(brain)
    if not all(bool(torch.isfinite(part).all()) for part in (embedding.polar, embedding.axial, embedding.scalars)):
        raise InputError(f"{scan.name} gives a code that is not finite; the scan or the model {model.name} is broken.")
    verified = None
    if job.config.verify:
        verified = verify_scan(model, source, turns=job.config.verify_turns, seed=job.config.seed)
    result = InputResult(
        scan.name, scan.stem, file_sha256(scan.path), job.digest, embedding, verified,
        time.perf_counter() - started, loading, tuple(source.histogram.tolist()), source.volume_ml,
    )  # fmt: skip
    result.write(job.out)
    return result


def _sizes(outcomes: Sequence[EmbedOutcome]) -> tuple[int, int, int]:
    """Scalars, polar and axial vectors of the codes; zeros where every scan failed."""
    for outcome in outcomes:
        if outcome.result is not None:
            one = outcome.result.embedding
            return len(one.scalars), len(one.polar), len(one.axial)
    return 0, 0, 0


def _digest(entry: EncodeInput, config: EmbedConfig, decides: dict[str, object]) -> str:
    """What decides the result of one input, its mask's bytes included."""
    mask = None
    with suppress(EquivoxError, OSError):
        path = mask_of(entry, config.mask)
        mask = None if path is None else file_sha256(path)
    return digest_of({**decides, "input": entry.scan.name, "mask": mask})


def _earlier(job: EmbedJob) -> InputResult | None:
    """An earlier whole result of the same scan under the same options and model."""
    scan = job.entry.scan
    return None if scan.problem else whole_result(job.out, scan.stem, scan.path, job.digest)


def _outcome(job: EmbedJob, result: ItemResult[InputResult]) -> EmbedOutcome:
    if result.failure is not None:
        marker_path(job.out, job.entry.scan.stem).unlink(missing_ok=True)  # of an earlier run: no longer true
        return EmbedOutcome(job.entry, None, code=result.failure.code, reason=result.failure.reason)
    return EmbedOutcome(job.entry, result.value, resumed=result.resumed)


def _write(run: EmbedRun, record: RunRecord) -> None:
    """The tables; notes every input, failure and warning in the record."""
    rows, sizes = [outcome.row for outcome in run.outcomes], _sizes(run.outcomes)
    (write_embeddings_npz if run.config.format == "npz" else write_embeddings_csv)(run.table, rows, sizes)
    if run.config.verify:
        write_text(run.out / VERIFY_CSV, verify_table(run.verified))
    for outcome in run.outcomes:
        result = outcome.result
        facts: dict[str, object] = {"resumed": outcome.resumed, "stem": outcome.entry.scan.stem}
        if result is not None:
            facts |= {"seconds": round(result.seconds, 3), "loading_s": round(result.loading_s, 3)}
        record.add_input(outcome.entry.scan.path, sha256=None if result is None else result.input_sha256, **facts)
        if result is None:
            record.add_failure(outcome.entry.scan.name, outcome.code, outcome.reason)
        else:
            for text in result.embedding.warnings:
                record.add_warning(text, input=outcome.entry.scan.name)
    for text in run.notes:
        record.add_warning(text)
    record.add("skipped", [{"who": who, "why": why} for who, why in run.skipped])


def verify_table(rows: Sequence[tuple[str, Verified]]) -> str:
    """CSV text: one line per input."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["input", "turns", "E", "E_axial", "I", "pose_deg", "floor", "E_cube", "I_cube"])
    for name, one in rows:
        numbers = [one.E, one.E_axial, one.I, one.pose_deg, one.floor, one.E_cube, one.I_cube]
        table.writerow([name, one.turns, *(f"{value:.6g}" for value in numbers)])
    return text.getvalue()
