"""`equivox encode embed`: from scans to ``embeddings.csv`` (or npz), ``run.json`` and, asked for, ``verify.csv``."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

import equivox
from equivox.errors import EquivoxError, InputError
from equivox.formats.atomic import write_text
from equivox.formats.markers import digest_of, marker_path
from equivox.formats.scans import require_masks
from equivox.formats.tables import as_csv
from equivox.run.batch import (
    InputOutcome,
    RunChoice,
    clear_the_way,
    close_record,
    errors_of,
    exit_code_of,
    if_still_true,
    note_inputs,
    open_record,
    run_inputs,
)
from equivox.run.device import DeviceChoice, choose_device
from equivox.run.record import RunRecord, file_sha256
from equivox.tasks.encode.config import EmbedConfig
from equivox.tasks.encode.data import open_brain
from equivox.tasks.encode.inputs import EncodeInput, find_inputs, mask_of
from equivox.tasks.encode.model import EncodeModel, load_encode_model, require_encoder
from equivox.tasks.encode.results import (
    EmbeddingRow,
    InputResult,
    read_result,
    write_embeddings_csv,
    write_embeddings_npz,
)
from equivox.tasks.encode.verify import Verified, verify_scan
from equivox.weights.folder import find_model

EMBEDDINGS, VERIFY_CSV = "embeddings", "verify.csv"


@dataclass(frozen=True)
class EmbedJob:
    """One input with everything that its worker needs to know."""

    entry: EncodeInput
    out: Path
    config: EmbedConfig
    digest: str

    @property
    def traces(self) -> tuple[Path, ...]:
        """Its marker."""
        return (marker_path(self.out, self.entry.scan.stem),)


class EmbedOutcome(InputOutcome[EncodeInput, InputResult]):
    """What became of one input."""

    @property
    def row(self) -> EmbeddingRow:
        """Its line of the table."""
        return EmbeddingRow(self.entry.name, self.result, self.reason)


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
            text if outcome.entry.path.name in text else f"{outcome.entry.name}: {text}"
            for outcome in self.outcomes
            if outcome.result is not None
            for text in outcome.result.embedding.warnings
        )

    @property
    def verified(self) -> list[tuple[str, Verified]]:
        """Measurements of ``--verify`` by input."""
        return [
            (outcome.entry.name, outcome.result.verified)
            for outcome in self.outcomes
            if outcome.result is not None and outcome.result.verified is not None
        ]

    @property
    def exit_code(self) -> int:
        """See :func:`equivox.run.batch.exit_code_of`."""
        return exit_code_of(self.outcomes)

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
                    "input": one.entry.name,
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
            "errors": errors_of(self.outcomes),
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
    require_masks(config.mask, len(found.entries))
    clear_the_way(out, (f"{EMBEDDINGS}.csv", f"{EMBEDDINGS}.npz", VERIFY_CSV), run)
    decides = {**config.decides(), "model": folder.sha256, "version": equivox.__version__}
    jobs = [EmbedJob(entry, out, config, _digest(entry, config, decides)) for entry in found.entries]
    record = open_record(command, config.as_dict(), run, device, folder, seed=config.seed)

    def finish(outcomes: tuple[EmbedOutcome, ...]) -> EmbedRun:
        finished = EmbedRun(out, config, folder.as_dict(), device, outcomes, found.notes, found.skipped)
        _write(finished, record)
        return finished

    finished = run_inputs(
        embed_input,
        jobs,
        initializer=functools.partial(load_encode_model, folder.path, str(device.device)),
        run=run, out=out, record=record, earlier=_earlier, outcome=EmbedOutcome, finish=finish, progress=progress,
    )  # fmt: skip
    close_record(record, out, finished.exit_code)
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
        tuple(source.tissue_depths().tolist()),
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
    return digest_of({**decides, "input": entry.name, "mask": mask})


def _earlier(job: EmbedJob) -> InputResult | None:
    """An earlier whole result of the same scan under the same options and model."""
    return if_still_true(read_result(job.out, job.entry.scan.stem), job)


def _write(run: EmbedRun, record: RunRecord) -> None:
    """The tables; notes every input, failure and warning in the record."""
    rows, sizes = [outcome.row for outcome in run.outcomes], _sizes(run.outcomes)
    (write_embeddings_npz if run.config.format == "npz" else write_embeddings_csv)(run.table, rows, sizes)
    if run.config.verify:
        write_text(run.out / VERIFY_CSV, verify_table(run.verified))
    note_inputs(record, run.outcomes, _facts)
    for outcome in run.outcomes:
        for text in () if outcome.result is None else outcome.result.embedding.warnings:
            record.add_warning(text, input=outcome.entry.name)
    for text in run.notes:
        record.add_warning(text)
    record.add("skipped", [{"who": who, "why": why} for who, why in run.skipped])


def _facts(outcome: EmbedOutcome) -> dict[str, object]:
    """What the record keeps of an input."""
    facts: dict[str, object] = {"stem": outcome.entry.scan.stem}
    if outcome.result is not None:
        facts |= {"seconds": round(outcome.result.seconds, 3), "loading_s": round(outcome.result.loading_s, 3)}
    return facts


def verify_table(rows: Sequence[tuple[str, Verified]]) -> str:
    """CSV text: one line per input."""
    columns = ("E", "E_axial", "I", "pose_deg", "floor", "E_cube", "I_cube")
    lines = [[name, one.turns, *(f"{getattr(one, column):.6g}" for column in columns)] for name, one in rows]
    return as_csv(["input", "turns", *columns], lines)
