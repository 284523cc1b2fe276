"""``equivox encode finetune``: heads for age, sex and diagnosis on an encoder, which learns along (slowly) or not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from equivox.errors import InputError
from equivox.formats.atomic import write_text
from equivox.formats.tables import records_as_csv
from equivox.nets.brain_heads import BrainHeads
from equivox.run.sampling import group_samples
from equivox.run.seeds import generator_for
from equivox.run.training_folder import MODEL
from equivox.run.training_session import Progress
from equivox.tasks.encode.model import ENCODER, require_encoder
from equivox.tasks.encode.photometric import DegradationRange
from equivox.tasks.encode.train import Session, TrainedEncoder, TrainRun
from equivox.tasks.encode.train_config import FinetuneConfig
from equivox.tasks.encode.train_course import FinetuneCourse
from equivox.tasks.encode.train_data import Parts, find_parts, fit_scale, target_rows
from equivox.tasks.encode.train_networks import PredictionNetwork, seeded_encoder
from equivox.tasks.encode.train_result import write_finetuned
from equivox.tasks.encode.train_samples import BrainSamples, Drawing, ScanSet, ScanStore
from equivox.weights.folder import ModelFolder, find_model

PREDICTIONS = "predictions.csv"
NEW = "new:"
"""``--model new:brain_cnn`` begins with an untrained encoder of that architecture."""


def finetune_encoder(
    inputs: Sequence[str | Path],
    model: str,
    config: FinetuneConfig,
    run: TrainRun,
    *,
    network: Mapping[str, Any] | None = None,
    command: Sequence[str] = (),
    progress: Progress | None = None,
) -> TrainedEncoder:
    """Train heads, and the encoder with them.

    Parameters
    ----------
    inputs
        Data sets with tables of the targets.
    model
        Name or folder of an encoder, or ``new:ARCHITECTURE``.
    config, run, command, progress
        As for :func:`equivox.tasks.encode.train.pretrain_encoder`.
    network
        Options of a new encoder.

    Raises
    ------
    EquivoxError
        If the data or the settings cannot be used, results are in the way, or an extra is missing.
    """
    parts = find_parts(
        inputs, images=run.images, layout=run.layout, share_validation=config.share_validation, seed=run.seed
    )
    return finetune_parts(parts, model, config, run, network=network, command=command, progress=progress)


def finetune_parts(
    parts: Parts,
    model: str,
    config: FinetuneConfig,
    run: TrainRun,
    *,
    network: Mapping[str, Any] | None = None,
    command: Sequence[str] = (),
    progress: Progress | None = None,
    told: Mapping[str, Any] | None = None,
) -> TrainedEncoder:
    """As :func:`finetune_encoder`, with scans for training and validation that were chosen before.

    ``told`` is further plain values that a resumed run must agree with, as the fold that was left out.
    """
    encoder, fields = _encoder(model, network or {}, config, run.seed)
    scale, weights = fit_scale(parts.training, config.targets)
    known = require_known(parts.training, config.targets), require_known(parts.validation, config.targets)
    parts = type(parts)(known[0], known[1], parts.notes)
    joined = PredictionNetwork(
        encoder, scale.outputs(config.targets), hidden=config.hidden, dropout=config.dropout, seed=run.seed
    )
    course = FinetuneCourse(joined, config, scale, weights)
    turned = config.orientation == "uniform"
    voxel_size_mm = float(fields["voxel_size_mm"])
    samples = tuple(
        BrainSamples(
            ScanStore(part, voxel_size_mm, brain_extracted=run.brain_extracted),
            Drawing(
                side=int(fields["side"]), ranges=DegradationRange().scaled(config.strength), turn_first=turned,
                degrade_first=config.strength > 0 and number == 0,
            ),
            training=number == 0,
            seed=run.seed,
            targets=target_rows(part, config.targets, scale),
        )
        for number, part in enumerate((parts.training, parts.validation))
    )  # fmt: skip
    settings = {**config.as_dict(), "encoder": dict(fields), "model": model, **(told or {})}
    session = Session(run, settings, parts, command, validate_every=config.validate_every)
    fitted = session.fit(course, samples, progress)
    written = write_finetuned(
        run.out / MODEL, config, fitted, encoder_fields=fields, head_fields=joined.fields, scale=scale,
        counts=session.counts, seed=run.seed, data=session.data,
    )  # fmt: skip
    rows = predict_targets(written, samples[1], parts.validation)
    write_text(run.out / PREDICTIONS, records_as_csv(rows))
    return session.close(written, fitted, course)


@torch.inference_mode()
def predict_targets(folder: ModelFolder, samples: BrainSamples, scans: ScanSet) -> list[dict[str, object]]:
    """What a finetuned model says of every scan, beside what is known; ages in years, sexes and diagnoses by name."""
    networks = folder.networks()
    encoder, heads = networks[ENCODER], networks["heads"]
    assert isinstance(heads, BrainHeads)
    output = folder.config["output"]
    rows: list[dict[str, object]] = []
    for index, subject in enumerate(scans.subjects):
        group = group_samples([samples.sample(0, index)])[0]
        answers = heads(encoder(group["volume"], group["mask"]).scalars)
        row: dict[str, object] = {"id": subject.id, "session": subject.session}
        for name in output["targets"]:
            if name == "age":
                years = float(answers[name][0, 0]) * output["age_sd"] + output["age_mean"]
                row |= {"age": "" if subject.age is None else subject.age, "age_predicted": round(years, 3)}
            elif name == "sex":
                share = float(torch.sigmoid(answers[name][0, 0]))
                row |= {"sex": subject.sex, "sex_predicted": "M" if share > 0.5 else "F", "male": round(share, 4)}
            else:
                shares = answers[name][0].softmax(0)
                best = int(shares.argmax())
                row |= {"diagnosis": subject.diagnosis, "diagnosis_predicted": output["diagnoses"][best]}
                row["diagnosis_probability"] = round(float(shares[best]), 4)
        rows.append(row)
    return rows


def _encoder(
    model: str, options: Mapping[str, Any], config: FinetuneConfig, seed: int
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The encoder to begin with, and its fields."""
    if model.startswith(NEW):
        side = config.side or 64
        fields: dict[str, Any] = {
            "architecture": model.removeprefix(NEW), **options, "side": side, "voxel_size_mm": 3.3 * 64 / side,
        }  # fmt: skip
        return seeded_encoder(fields, generator_for(seed, "weights")), fields
    folder = find_model(model)
    require_encoder(folder)
    fields = json.loads(json.dumps(folder.config["networks"][ENCODER]))
    return folder.networks()[ENCODER].requires_grad_(True), fields


def require_known(scans: ScanSet, targets: tuple[str, ...]) -> ScanSet:
    """The scans of which some target is known."""
    known = tuple(
        one
        for one in scans.subjects
        if ("age" in targets and one.age is not None)
        or ("sex" in targets and one.sex)
        or ("diagnosis" in targets and one.diagnosis)
    )
    if not known:
        raise InputError(f"no scan has {' or '.join(targets)}; look at the table's columns.")
    return ScanSet(known)
