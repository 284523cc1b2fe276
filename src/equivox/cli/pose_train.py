"""``equivox pose train``: train the segmentation network, or the one that sees the rotation."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Group, Parameter

from equivox.cli.options import RUNNING, Training
from equivox.cli.speaking import epoch_lines, given_values, print_results, say
from equivox.errors import ConfigError

if TYPE_CHECKING:
    from equivox.tasks.pose.train import Trained, TrainRun
    from equivox.tasks.pose.train_simulated import SimulatedData

app = App(
    name="train",
    help="Train a segmentation or a rotation network.",
    help_format="plaintext",
    group_commands=Group("Networks", sort_key=1),
)

AUGMENTATION = Group("Augmentation", sort_key=5)
NETWORK = Group("Network", sort_key=6)
LEARNING = Group("Learning", sort_key=7)
SIMULATION = Group("Simulation", sort_key=8)


def _augment(*names: str) -> Parameter:
    return Parameter(name=names, group=AUGMENTATION)


def _network(*names: str) -> Parameter:
    return Parameter(name=names, group=NETWORK)


def _learn(*names: str) -> Parameter:
    return Parameter(name=names, group=LEARNING)


_RUN = Parameter(group=RUNNING)
SHOWN = ("train_loss", "val_loss", "val_dice_class_1", "val_rotation_error_deg", "val_euler_mean_error_deg")
"""Numbers of an epoch that a terminal shows."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TrainOptions(Training):
    """How a training is run."""

    join: Annotated[str | None, _RUN] = None
    """Name or folder of a model: take the other network from it, so that the result can pose on its own."""
    simulate: Annotated[int | None, Parameter(group=SIMULATION)] = None
    """Simulate so many new head stacks per epoch, beside the folders' volumes or instead of them (preset equivox)."""
    templates: Annotated[Path | None, Parameter(group=SIMULATION)] = None
    """Folder of templates for --simulate, as equivox simulate head takes it."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class CommonOptions:
    """What both trainings take; None leaves the preset's value."""

    n_epochs: Annotated[int | None, _learn("--epochs", "--n_epochs", "--n-epochs")] = None
    """Epochs. [published: 1000 segment, 100000 rotate; equivox: 1000]"""
    batch_size: Annotated[int | None, _learn("--batch-size", "--batch_size", "--batchsize")] = None
    """Volumes per step. [published: 4 segment, 1 rotate; equivox: 4]"""
    lr: Annotated[float | None, _learn("--lr")] = None
    """Learning rate. [published: 1e-4 segment, 0.01 rotate; equivox: 1e-3]"""
    weight_decay: Annotated[float | None, _learn("--weight-decay", "--weight_decay")] = None
    """Weight decay. [0 segment, 3e-5 rotate]"""
    validate_every_n_epoch: Annotated[
        int | None, _learn("--validate-every", "--validate_every_n_epoch", "--validate-every-n-epoch")
    ] = None
    """Epochs between validations. [1]"""
    rotation_deg: Annotated[float | None, _augment("--rotation-deg", "--rotation")] = None
    """Published: range of each of 3 Euler angles [180 segment, 90 rotate]; equivox: largest uniform rotation [180]."""
    voxel_size_mm: Annotated[float | None, _augment("--voxel-size-mm", "--img_res", "--img-res")] = None
    """Published: assumed voxel size in mm, nothing is resampled; equivox: volumes are resampled to it. [3.0]"""
    max_voxel_size_mm: Annotated[float | None, _augment("--max-voxel-size-mm", "--max_res_iso", "--max-res-iso")] = None
    """Largest simulated voxel, mm. [8.0 segment, 7.5 rotate]"""
    max_bias: Annotated[float | None, _augment("--max-bias", "--max_bias")] = None
    """Bias-field coefficients up to this. [0.5]"""
    noise_std: Annotated[float | None, _augment("--noise-std", "--noise_std")] = None
    """Largest standard deviation of the noise, image in [0, 1]. [0.03; published rotate: 0]"""
    norm_perc: Annotated[float | None, _augment("--norm-perc", "--norm_perc")] = None
    """Fraction of voxels clipped at either end. [0.005]"""
    gamma_min: Annotated[float | None, _augment("--gamma-min", "--gamma_min")] = None
    """Smallest logarithm of gamma. [-0.8; published rotate: -2.0]"""
    gamma_max: Annotated[float | None, _augment("--gamma-max", "--gamma_max")] = None
    """Largest logarithm of gamma. [published: 0.0 segment, 0.1 rotate; equivox: 0.5]"""
    sigma_min_mm: Annotated[float | None, _augment("--sigma-min-mm", "--sigma_min", "--sigma-min")] = None
    """Smallest standard deviation across a spin-history band, mm. [1.5 segment, 2.3 rotate]"""
    sigma_max_mm: Annotated[float | None, _augment("--sigma-max-mm", "--sigma_max", "--sigma-max")] = None
    """Largest one, mm. [2.3 segment, 4.6 rotate]"""
    alpha_min: Annotated[float | None, _augment("--alpha-min", "--alpha_min")] = None
    """Smallest strength of a band. [0.5]"""
    alpha_max: Annotated[float | None, _augment("--alpha-max", "--alpha_max")] = None
    """Largest strength of a band. [published: 1.5, which turns the image negative; equivox: 1.0]"""
    band_boundary: Annotated[Literal["in_plane", "3d"] | None, _augment("--band-boundary")] = None
    """Where a band may end: in-plane edges (published) or edges in space (equivox)."""
    band_position: Annotated[Literal["edge_heavy", "uniform"] | None, _augment("--band-position")] = None
    """Mostly near the object's ends (published) or anywhere in it (equivox)."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SegmentOptions(CommonOptions):
    """What the segmentation training takes."""

    flipping: Annotated[bool | None, _augment("--flipping")] = None
    """Mirror along array axis 0 half of the time. [published: off; equivox: on]"""
    crop_size_voxels: Annotated[int | None, _network("--crop-size-voxels", "--crop_size", "--crop-size")] = None
    """Side of the cube that the network sees. [128]"""
    scaling_lower_bound: Annotated[float | None, _augment("--scaling-lower-bound", "--scaling_lower_bound")] = None
    """Smallest scale, drawn per axis. [0.5]"""
    scaling_upper_bound: Annotated[float | None, _augment("--scaling-upper-bound", "--scaling_upper_bound")] = None
    """Largest scale. [1.3]"""
    translation_mm: Annotated[float | None, _augment("--translation-mm", "--translation")] = None
    """Largest shift per axis, mm. [published: 10; equivox: 30]"""
    randomise_res: Annotated[bool | None, _augment("--randomise-res", "--randomise_res")] = None
    """Simulate low resolution. [published: off; equivox: on]"""
    n_levels: Annotated[int | None, _network("--n-levels", "--n_levels")] = None
    """Resolution levels, one more than poolings. [4]"""
    unet_feat: Annotated[int | None, _network("--unet-feat", "--unet_feat")] = None
    """Channels of the finest level. [16]"""
    feat_mult: Annotated[int | None, _network("--feat-mult", "--feat_mult")] = None
    """Factor of the channels per level. [2]"""
    activation: Annotated[Literal["elu", "relu"] | None, _network("--activation")] = None
    """Activation. [elu]"""
    norm: Annotated[Literal["batch", "instance", "group"] | None, _network("--norm")] = None
    """Norm. [published: batch; equivox: group, which does not depend on the batch size]"""
    n_output_channels: Annotated[int | None, _network("--n-output-channels", "--n_output_channels")] = None
    """Classes, background included; label 1 is the object. [3]"""
    class_weights: Annotated[
        tuple[float, ...] | None,
        Parameter(name=("--class-weights", "--class_weights"), group=LEARNING, consume_multiple=True, negative=""),
    ] = None
    """One weight per class, background first. [all 1]"""
    dice_weight: Annotated[float | None, _learn("--dice-weight", "--dice_weight")] = None
    """Weight of the Dice loss beside the cross-entropy. [1.0]"""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RotateOptions(CommonOptions):
    """What the rotation training takes."""

    image_size_voxels: Annotated[int | None, _network("--image-size-voxels", "--image_size", "--image-size")] = None
    """Longest side of the crop around the object. [64]"""
    shift_voxels: Annotated[float | None, _augment("--shift-voxels", "--shift")] = None
    """Largest shift per axis, voxels of the crop. [published: 0; equivox: 2]"""
    momentum: Annotated[float | None, _learn("--momentum")] = None
    """Momentum of SGD (published) [0.99], first decay rate of Adam (equivox) [0.9]."""
    n_levels: Annotated[int | None, _network("--n-levels", "--n_levels")] = None
    """Poolings by two, one less than resolution levels. [4]"""
    kernel_size: Annotated[int | None, _network("--kernel-size", "--kernel_size")] = None
    """Kernel diameter and number of radial functions. [5]"""
    multiplier: Annotated[int | None, _network("--multiplier")] = None
    """Copies of each field at the finest level. [2]"""
    object_symmetry: Annotated[Literal["mirror", "c2", "none"] | None, _network("--symmetry")] = None
    """Of the object: mirror across its x axis, half turn about its z axis, or none. [mirror, as a head]"""


@app.command
def segment(
    train_image_dir: Path | None = None,
    train_labels_dir: Path | None = None,
    val_image_dir: Path | None = None,
    val_labels_dir: Path | None = None,
    model_dir: Path | None = None,
    /,
    *,
    out: Path | None = None,
    preset: Literal["published", "equivox"] = "equivox",
    options: SegmentOptions | None = None,
    run: TrainOptions | None = None,
) -> None:
    """Train the network that finds the object.

    A volume and its label share the name up to the first dot. Labels: 1 the object, 2 and above further classes, 0
    background. Writes model/ (for equivox pose predict --model), checkpoints/best.ckpt and last.ckpt, curves.csv and
    run.json. Values in brackets are the presets'. Needs the extra train. With --simulate the first two folders, or all
    four, may be left out.

    For example:

    equivox pose train segment train/img train/lab val/img val/lab --out seg --epochs 200

    equivox pose train segment train/img train/lab val/img val/lab seg --preset published --device cuda --resume

    Parameters
    ----------
    train_image_dir
        Folder of volumes for training (.nii, .nii.gz).
    train_labels_dir
        Folder of their labels.
    val_image_dir
        Folder of volumes for validation.
    val_labels_dir
        Folder of their labels.
    model_dir
        Results' folder, as published; or give --out.
    out
        Results' folder.
    preset
        published: the original's augmentations and optimiser. equivox: uniform rotations, warps from the full volume,
        MONAI's intensities, millimetres everywhere.
    options
        What to train and how.
    run
        How it is run.
    """
    from equivox.tasks.pose.train_config import segment_preset

    values = given_values(options or SegmentOptions())
    settings = segment_preset(preset).with_values(**values)
    if "max_voxel_size_mm" in values and not settings.randomise_res:
        raise ConfigError("--max_res_iso does nothing without --randomise_res; pass both or neither.")
    speak = run or TrainOptions()
    given = [train_image_dir, train_labels_dir, val_image_dir, val_labels_dir, model_dir]
    training, validation, last = _segment_folders([path for path in given if path is not None], speak)
    place = _one_place(last, out)
    from equivox.tasks.pose.train import train_segment

    trained = train_segment(
        training,
        validation,
        settings,
        _train_run(speak, place),
        simulated=_simulated(speak),
        command=sys.argv,
        progress=epoch_lines(speak, settings.n_epochs, SHOWN),
    )
    _close(trained, place, speak)


@app.command
def rotate(
    paths: list[Path] | None = None,
    /,
    *,
    out: Path | None = None,
    preset: Literal["published", "equivox"] = "equivox",
    options: RotateOptions | None = None,
    run: TrainOptions | None = None,
) -> None:
    """Train the network that sees how the object is turned.

    Annotations: a .csv with the columns frame_id (name up to the first dot), rot_x, rot_y, rot_z (degrees about the
    fixed array axes x, y, z, from the array to the head's axes) and fold (training or validation); or two tables, one
    for training and one for validation, without fold. Writes the same files as segment. Needs the extra train.

    For example:

    equivox pose train rotate train/img train/lab val/img val/lab poses.csv --out rot --epochs 300 --join seg/model

    equivox pose train rotate train/img train/lab val/img val/lab train.csv val.csv rot --preset published

    Parameters
    ----------
    paths
        TRAIN_IMAGES TRAIN_LABELS VAL_IMAGES VAL_LABELS ANNOTATIONS.csv [VAL_ANNOTATIONS.csv] [RESULTS].
    out
        Results' folder, where it is not the last path.
    preset
        published: the original's augmentations, optimiser and crops. equivox: rotations uniform on SO(3), warps from
        the full volume, MONAI's intensities, best epoch by geodesic error.
    options
        What to train and how.
    run
        How it is run.
    """
    from equivox.tasks.pose.train_config import rotate_preset
    from equivox.tasks.pose.train_layout import sort_paths

    speak = run or TrainOptions()
    layout = sort_paths(paths or [], simulate=speak.simulate is not None)
    settings = rotate_preset(preset).with_values(**given_values(options or RotateOptions()))
    place = _one_place(layout.results, out)
    from equivox.tasks.pose.train import train_rotate

    trained = train_rotate(
        layout,
        settings,
        _train_run(speak, place),
        simulated=_simulated(speak),
        command=sys.argv,
        progress=epoch_lines(speak, settings.n_epochs, SHOWN),
    )
    _close(trained, place, speak)


def _segment_folders(
    given: list[Path], speak: TrainOptions
) -> tuple[tuple[Path, Path] | None, tuple[Path, Path] | None, Path | None]:
    """Training folders, validation folders, results: what the paths mean, with and without simulation."""
    from equivox.tasks.pose.train_layout import split_folders

    if len(given) >= 4:
        return (given[0], given[1]), (given[2], given[3]), given[4] if len(given) == 5 else None
    if speak.simulate is None:
        raise ConfigError(
            f"got {len(given)} folders; give TRAIN_IMAGES TRAIN_LABELS VAL_IMAGES VAL_LABELS, or --simulate N."
        )
    images, labels, last = split_folders(given)
    return None, None if images is None or labels is None else (images, labels), last


def _simulated(speak: TrainOptions) -> SimulatedData | None:
    """What --simulate asks for."""
    if speak.simulate is not None:
        from equivox.tasks.pose.train_simulated import SimulatedData

        return SimulatedData(count=speak.simulate, templates=speak.templates)
    if speak.templates is not None:
        raise ConfigError("--templates does nothing without --simulate; pass both or neither.")
    return None


def _one_place(last_path: Path | None, out: Path | None) -> Path:
    """The results' folder, given once."""
    if (last_path is None) == (out is None):
        state = "was not given" if out is None else f"was given twice ({last_path} and --out {out})"
        raise ConfigError(f"the results' folder {state}; give it as the last path or as --out.")
    return out if last_path is None else last_path  # type: ignore[return-value]


def _train_run(speak: TrainOptions, place: Path) -> TrainRun:
    from equivox.tasks.pose.train import TrainRun

    return TrainRun(
        out=place, seed=speak.seed, device=speak.device, workers=speak.workers, resume=speak.resume,
        overwrite=speak.overwrite, keep_every=speak.keep_every, tensorboard=speak.tensorboard, join=speak.join,
    )  # fmt: skip


def _close(trained: Trained, place: Path, speak: TrainOptions) -> None:
    """Say where the results are; on stdout for machines, on stderr for people."""
    fitted = trained.fitted
    if speak.json:
        result = {
            "out": str(place), "model": str(trained.model.path), "sha256": trained.model.sha256,
            "epochs": fitted.epochs, "best_epoch": fitted.best_epoch, "monitor": trained.monitor,
            "best_value": fitted.best_value, "device": trained.device.as_dict(),
        }  # fmt: skip
        print_results("equivox.pose-train/1", [result], trained.warnings)
    if not speak.quiet:
        lines = [f"note: {text}" for text in trained.warnings]
        lines.append(f"device {trained.device.device} ({trained.device.reason})")
        lines.append(f"best: epoch {fitted.best_epoch + 1}, {trained.monitor} {fitted.best_value:.4g}")
        lines.append(f"model: {trained.model.path}")
        say(lines)
