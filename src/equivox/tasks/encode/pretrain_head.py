"""``equivox encode pretrain --preset head``: fixed convolutions, last layers learnt from pooled views; on one CPU core.

The convolutions of an equivariant encoder are good for much as they are drawn; what must be learnt is which of their
vectors and invariants to trust. Every view is pooled once into ``pooled/``; a run that was cut goes on there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import equivox
from equivox.errors import ConfigError
from equivox.nets.brain_encoder import BrainEncoder
from equivox.run.device import choose_device
from equivox.run.launched import launched
from equivox.run.record import RUN_JSON, RunRecord
from equivox.run.training_folder import LICENSE_TEXT, MODEL, prepare_training
from equivox.tasks.encode.head_fit import FEWEST_SCANS, fit_head, pose_errors_deg
from equivox.tasks.encode.photometric import DegradationRange
from equivox.tasks.encode.pooled import pool_scans
from equivox.tasks.encode.train import TrainRun
from equivox.tasks.encode.train_certificate import certify_encoder
from equivox.tasks.encode.train_config import HeadConfig
from equivox.tasks.encode.train_data import find_parts
from equivox.tasks.encode.train_result import ENCODER
from equivox.tasks.encode.train_samples import ScanSet
from equivox.weights.folder import ModelFolder, write_model_folder

POOLED = "pooled"
SHARE_VALIDATION = 0.15


@dataclass(frozen=True, slots=True)
class FittedHead:
    """What a training of the head has made.

    Parameters
    ----------
    model
        The model folder.
    parameters
        Of the head.
    counts
        Scans for training and for validation.
    pose_deg
        Median and 95th percentile of the error of relative poses on validation: ``clean`` and ``degraded``, before and
        after.
    warnings
        What a user should know.
    """

    model: ModelFolder
    parameters: int
    counts: Mapping[str, int]
    pose_deg: Mapping[str, Mapping[str, float]]
    warnings: tuple[str, ...]


def pretrain_head(
    inputs: Sequence[str | Path],
    network: Mapping[str, Any],
    config: HeadConfig,
    run: TrainRun,
    *,
    command: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
) -> FittedHead:
    """Pool the views of all scans, train the head, write the model.

    Parameters
    ----------
    inputs
        Scans, folders, or data sets with tables.
    network
        Options of the encoder.
    config
        Views and training.
    run
        Where, from which seed; the device is the CPU.
    command
        For the record.
    progress
        Called with lines for people.

    Raises
    ------
    EquivoxError
        If the data or the settings cannot be used, or results are in the way.
    """
    if run.device not in ("auto", "cpu") or run.devices > 1 or run.precision != "32":
        raise ConfigError("the preset head runs on one CPU in single precision; leave --device and --precision out.")
    if launched() is not None:
        raise ConfigError("the preset head runs in one process; start it without torchrun or srun.")
    say = progress or (lambda line: None)
    parts = find_parts(inputs, images=run.images, layout=run.layout, share_validation=SHARE_VALIDATION, seed=run.seed)
    if len(parts.training) < FEWEST_SCANS:
        raise ConfigError(f"the preset head needs {FEWEST_SCANS} scans for training, got {len(parts.training)}.")
    encoder = BrainEncoder(**network, generator=torch.Generator().manual_seed(run.seed)).eval()
    plan = {
        "seed": run.seed, "precision": run.precision, "settings": {**asdict(config), "network": dict(network)},
        "data": {"training": parts.training.digest(), "validation": parts.validation.digest()},
    }  # fmt: skip
    plan = json.loads(json.dumps(plan))
    prepare_training(run, plan)
    record = RunRecord(command, {**plan["settings"], "out": str(run.out)}, seed=run.seed, device=_cpu())
    for note in parts.notes:
        record.add_warning(note)
    pooled = []
    with record.timed("pooling"):
        for name, part in (("training", parts.training), ("validation", parts.validation)):
            pooled.append(
                pool_scans(
                    encoder, _paths(part), config.views, DegradationRange(), seed=run.seed,
                    cache=run.out / POOLED / name, progress=lambda done, total: say(f"[{done}/{total}] pooled"),
                )
            )  # fmt: skip
    before = _pose(encoder, pooled[1])
    with record.timed("training"):
        fit_head(
            encoder.head, pooled[0], config, seed=run.seed,
            progress=lambda step, loss: say(f"step {step + 1}  loss {loss:.5f}") if step % 100 == 99 else None,
        )  # fmt: skip
    pose = {"before": before, "after": _pose(encoder, pooled[1])}
    counts = {"training": len(parts.training), "validation": len(parts.validation)}
    model = _write(run, encoder, network, plan, counts, pose)
    record.add("data", {**plan["data"], **counts})
    record.add("pose_deg", pose)
    record.add("model", {"path": MODEL, "sha256": model.sha256})
    record.write(run.out / RUN_JSON, "done")
    parameters = sum(one.numel() for one in encoder.head.parameters())
    return FittedHead(model, parameters, counts, pose, parts.notes)


def _pose(encoder: BrainEncoder, scans: Any) -> dict[str, float]:
    """Medians and 95th percentiles over scans (clean) and over scans and views (degraded)."""
    errors = pose_errors_deg(encoder.head, scans).double()
    found = {"clean_median": float(errors[:, 0].median()), "clean_p95": float(errors[:, 0].quantile(0.95))}
    if errors.shape[1] > 1:
        degraded = errors[:, 1:].flatten()
        found |= {"degraded_median": float(degraded.median()), "degraded_p95": float(degraded.quantile(0.95))}
    return found


def _write(
    run: TrainRun,
    encoder: BrainEncoder,
    network: Mapping[str, Any],
    plan: Mapping[str, Any],
    counts: Mapping[str, int],
    pose: Mapping[str, Mapping[str, float]],
) -> ModelFolder:
    name = run.out.resolve().name
    fields = {
        "architecture": "brain_encoder", "side": encoder.side, "voxel_size_mm": encoder.voxel_size_mm, **network,
    }  # fmt: skip
    return write_model_folder(
        run.out / MODEL,
        name=name,
        task="encode",
        behaviour="equivox",
        networks={ENCODER: fields},
        weights={ENCODER: encoder.state_dict()},
        card=_card(name, counts, pose),
        certificate=certify_encoder(encoder, encoder.side),
        license_text=LICENSE_TEXT,
        extra={
            "input": {
                "side": encoder.side, "voxel_size_mm": encoder.voxel_size_mm, "contrast": "T1w, brain-extracted",
                "axes": "RAS",
            },
            "provenance": {
                "trained_with": f"equivox {equivox.__version__}", "training": dict(plan["settings"]), "preset": "head",
                "data": dict(plan["data"]), "scans": dict(counts), "seed": run.seed, "pose_deg": dict(pose),
            },
            "license": "unknown",
        },
        overwrite=True,
    )  # fmt: skip


def _card(name: str, counts: Mapping[str, int], pose: Mapping[str, Mapping[str, float]]) -> str:
    rows = "\n".join(
        f"| {when} | " + " | ".join(f"{value:.2f}" for value in values.values()) + " |" for when, values in pose.items()
    )
    columns = list(next(iter(pose.values())))
    head = f"| training | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}"
    return f"""---
license: unknown
tags: [brain, mri, equivariance, self-supervised]
---
# {name}

A brain encoder of equivox {equivox.__version__} (`brain_encoder`), preset head: convolutions as they were drawn from
the seed, last layers learnt without labels on {counts["training"]} scans, looked at on {counts["validation"]} others.

## Intended use
Research. Codes for probes, alignment and retrieval: `equivox encode embed`, `align`, `probe`. Not a medical device.

## Measured
Error of relative poses between two views of a scan of validation [degrees]:

{head}
{rows}

## Limits
What it is good for on other scanners is not measured: use `equivox encode robustness` and `probe` on your own scans.
"""


def _paths(scans: ScanSet) -> list[Path]:
    return [one.path for one in scans.subjects if one.path is not None]


def _cpu() -> dict[str, str]:
    """What the record says of the device."""
    return {key: str(value) for key, value in choose_device("cpu").as_dict().items()}
