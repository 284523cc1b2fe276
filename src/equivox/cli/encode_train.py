"""``equivox encode pretrain`` and ``equivox encode finetune``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from equivox.cli.options import RUNNING, Training
from equivox.cli.speaking import best_of, close_training, epoch_lines, given_values, print_document, print_results, say

if TYPE_CHECKING:
    from equivox.tasks.encode.train import TrainedEncoder, TrainRun
    from equivox.tasks.encode.train_config import FinetuneConfig

LEARNING = Group("Learning", sort_key=6)
DATA = Group("Data", sort_key=5)
_LEARN, _DATA, _RUN = Parameter(group=LEARNING), Parameter(group=DATA), Parameter(group=RUNNING)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TrainOptions(Training):
    """How a training is run."""

    images: Annotated[Path | None, _DATA] = None
    """Folder of the scans that a table names; by default the table's own."""
    layout: Annotated[Literal["auto", "bids", "adni", "oasis1", "oasis2", "oasis3", "ncanda", "csv"], _DATA] = "auto"
    """What a folder or table is, where that cannot be told."""
    brain_extracted: Annotated[bool, Parameter(group=DATA, negative="")] = False
    """You vouch that nothing but brain is left; what looks like a skull is then a warning."""
    devices: Annotated[int, _RUN] = 1
    """Devices, or processes on a CPU, that share every batch (DDP)."""
    precision: Annotated[Literal["32", "bf16", "16"], _RUN] = "32"
    """Mixed precision of the network."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class PretrainOptions:
    """What replaces the recipe's values; None leaves them."""

    network: Annotated[str | None, _LEARN] = None
    """Encoder: brain_encoder (ours), brain_cnn, brain_vit, brain_swin."""
    side: Annotated[int | None, _LEARN] = None
    """Voxels of the working grid; the voxel size follows, so that the field of view stays."""
    epochs: Annotated[int | None, _LEARN] = None
    """Passes over the scans."""
    batch_size: Annotated[int | None, _LEARN] = None
    """Scans per step."""
    lr: Annotated[float | None, _LEARN] = None
    """Learning rate at first; it falls along a cosine."""
    weight_decay: Annotated[float | None, _LEARN] = None
    """Weight decay."""
    strength: Annotated[float | None, _LEARN] = None
    """Factor on gamma, shading, contrast, noise, slice thickness and wrong centres; 0 for none."""
    pairs: Annotated[Literal["views", "sessions"] | None, _LEARN] = None
    """Second view: of the same scan, or of another session of the same person."""
    validate_every: Annotated[int | None, _LEARN] = None
    """Epochs between validations."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class FinetuneOptions:
    """What replaces the defaults; None leaves them."""

    epochs: Annotated[int | None, _LEARN] = None
    """Passes over the scans."""
    batch_size: Annotated[int | None, _LEARN] = None
    """Scans per step."""
    lr: Annotated[float | None, _LEARN] = None
    """Learning rate of the heads."""
    encoder_lr: Annotated[float | None, _LEARN] = None
    """Of the encoder, times that of the heads; 0 freezes it."""
    weight_decay: Annotated[float | None, _LEARN] = None
    """Weight decay."""
    orientation: Annotated[Literal["none", "uniform"] | None, _LEARN] = None
    """Whether training turns scans; an equivariant encoder does not need it."""
    strength: Annotated[float | None, _LEARN] = None
    """Factor on all degradations; 0 for none."""
    side: Annotated[int | None, _LEARN] = None
    """Voxels of a new encoder's grid."""
    validate_every: Annotated[int | None, _LEARN] = None
    """Epochs between validations."""


def pretrain(
    inputs: list[str],
    /,
    *,
    out: Path,
    preset: str = "brain",
    options: PretrainOptions | None = None,
    run: TrainOptions | None = None,
) -> int:
    """Pretrain an encoder of brains without labels.

    Persons in the table's split "test" take no part; without a column split, validation is drawn by person. Writes
    model/ (for equivox encode embed --model), checkpoints/, curves.csv and run.json. Needs the extra train.

    For example:

    equivox encode pretrain subjects.csv --images t1 --out encoder --preset brain --epochs 20

    equivox encode pretrain bids --out encoder32 --preset vicreg --side 32 --batch-size 16 --seed 1 --resume

    Parameters
    ----------
    inputs
        A table with a folder of scans, a BIDS, ADNI, OASIS or NCANDA folder, or brain-extracted T1-weighted scans.
    out
        Results' folder.
    preset
        Recipe. Ours: head (drawn convolutions, last layers learnt: minutes on a CPU), brain (all of ours together), soe
        (scale-free, for plain networks), masked, vicreg, simclr, byol, autoencoder, vae; published: soe_published.
    options
        What replaces the recipe's values.
    run
        How it is run.
    """
    if preset == "head":
        return _pretrain_head(inputs, out, given_values(options or PretrainOptions()), run or TrainOptions())
    from equivox.tasks.encode.train_config import pretrain_preset

    config = pretrain_preset(preset)
    given = given_values(options or PretrainOptions())
    if "network" in given and given["network"] != config.network["architecture"]:
        given["network"] = {"architecture": given["network"]}
    elif "network" in given:
        del given["network"]
    if "side" in given:
        given["voxel_size_mm"] = config.voxel_size_mm * config.side / max(given["side"], 1)
    config = config.with_values(**given)
    speak = run or TrainOptions()
    from equivox.tasks.encode.train import pretrain_encoder

    trained = pretrain_encoder(
        inputs, config, _run(out, speak), command=sys.argv, progress=epoch_lines(speak, config.epochs)
    )
    _close(trained, out, speak, "equivox.encode-pretrain/1")
    return 0


def _pretrain_head(inputs: list[str], out: Path, given: dict[str, Any], speak: TrainOptions) -> int:
    """The recipe that trains no convolutions."""
    from equivox.errors import ConfigError
    from equivox.tasks.encode.pretrain_head import pretrain_head
    from equivox.tasks.encode.train_config import HEAD_NETWORK, HeadConfig

    side = int(given.pop("side", 64))
    rate = {"lr": given.pop("lr")} if "lr" in given else {}
    if given:
        raise ConfigError(f"the preset head has no option {', '.join(sorted(given))}; it takes --side and --lr.")
    network = {"side": side, "voxel_size_mm": 3.3 * 64 / max(side, 1), **HEAD_NETWORK}
    fitted = pretrain_head(
        inputs, network, HeadConfig(**rate), _run(out, speak), command=sys.argv,
        progress=None if speak.quiet else _print_line,
    )  # fmt: skip
    if speak.json:
        result = {
            "out": str(out), "model": str(fitted.model.path), "sha256": fitted.model.sha256,
            "parameters": fitted.parameters, "scans": dict(fitted.counts), "pose_deg": dict(fitted.pose_deg),
        }  # fmt: skip
        print_results("equivox.encode-pretrain/1", [result], fitted.warnings)
    if not speak.quiet:
        lines = [f"note: {text}" for text in fitted.warnings]
        for when, values in fitted.pose_deg.items():
            found = ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in values.items())
            lines.append(f"error of relative poses {when}: {found} degrees")
        say([*lines, f"model: {fitted.model.path}"])
    return 0


def _print_line(line: str) -> None:
    """One line on stderr."""
    say([line])


def finetune(
    inputs: list[str],
    /,
    *,
    out: Path,
    model: str,
    target: list[Literal["age", "sex", "diagnosis"]] | None = None,
    fold: str | None = None,
    options: FinetuneOptions | None = None,
    run: TrainOptions | None = None,
) -> int:
    """Train an encoder to read age, sex or a diagnosis.

    Scans without the target are left out. Writes model/, checkpoints/, curves.csv, predictions.csv (of the scans for
    validation) and run.json. Needs the extra train.

    For example:

    equivox encode finetune subjects.csv --images t1 --model encoder/model --target age --target sex --out ages

    equivox encode finetune bids --model new:brain_cnn --orientation uniform --out cnn-ages --seed 1 --json

    equivox encode finetune subjects.csv --images t1 --model brain-encoder-t1 --fold fold0 --out ages-by-fold

    Parameters
    ----------
    inputs
        As for pretrain; the table has the columns age, sex or diagnosis.
    out
        Results' folder.
    model
        Name or folder of an encoder, or new:ARCHITECTURE for an untrained one.
    target
        What to read; may be given several times. [age]
    fold
        Train once per fold and test on the persons left out, upright and turned: a column of the table (fold0), or a
        number of folds to draw by person (5). With :LABEL (fold0:2) one fold alone, for a cluster; the same command
        without it and with --resume gathers them. Writes fold-LABEL/, predictions.csv and crossvalidation.json.
    options
        What replaces the defaults.
    run
        How it is run.
    """
    from equivox.tasks.encode.train_config import FinetuneConfig

    given = given_values(options or FinetuneOptions())
    config = FinetuneConfig().with_values(targets=tuple(target or ("age",)), **given)
    speak = run or TrainOptions()
    if fold is not None:
        return _finetune_folds(inputs, out, model, config, fold, speak)
    from equivox.tasks.encode.finetune import finetune_encoder

    trained = finetune_encoder(
        inputs, model, config, _run(out, speak), command=sys.argv, progress=epoch_lines(speak, config.epochs)
    )
    _close(trained, out, speak, "equivox.encode-finetune/1")
    return 0


def _finetune_folds(
    inputs: list[str], out: Path, model: str, config: FinetuneConfig, fold: str, speak: TrainOptions
) -> int:
    """Once per fold, and the numbers over all."""
    from equivox.tasks.encode.finetune_folds import finetune_folds
    from equivox.tasks.encode.fold_choice import FoldChoice

    def on_fold(label: str, counts: Mapping[str, int]) -> Callable[[int, Mapping[str, float]], None] | None:
        if not speak.quiet:
            print(
                f"fold {label}: {', '.join(f'{n} {name}' for name, n in counts.items())}", file=sys.stderr, flush=True
            )
        return epoch_lines(speak, config.epochs)

    finished = finetune_folds(
        inputs, model, config, _run(out, speak), FoldChoice.parse(fold), command=sys.argv, on_fold=on_fold
    )
    if speak.json:
        print_document(finished.as_dict())
    if not speak.quiet:
        lines = [f"note: {text}" for text in finished.warnings]
        lines.append(f"{len(finished.rows)} scans held out; {finished.told}")
        say([*lines, *(line.text for line in finished.lines)])
    return 0


def _run(out: Path, speak: TrainOptions) -> TrainRun:
    from equivox.tasks.encode.train import TrainRun

    names = [item.name for item in fields(TrainRun) if item.name != "out"]
    return TrainRun(out=out, **{name: getattr(speak, name) for name in names})


def _close(trained: TrainedEncoder, out: Path, speak: TrainOptions, schema: str) -> None:
    """Say where the results are; on stdout for machines, on stderr for people."""
    facts = {"scans": dict(trained.counts), **best_of(trained), "last": dict(trained.values)}
    close_training(speak, schema, trained, out, facts)
