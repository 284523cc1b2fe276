"""Turn the two published checkpoints, U-Net and E(3)-CNN, into one model folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

import equivox
from equivox.errors import ConfigError, ModelFolderError
from equivox.nets.pose import PoseNet
from equivox.nets.unet import UNet
from equivox.weights.certificate import certify_cube
from equivox.weights.checkpoints import DESCRIPTIONS, Kind, published_state
from equivox.weights.folder import ModelFolder, write_model_folder
from equivox.weights.published_names import pose_net_fields, pose_net_weights, unet_fields, unet_weights
from equivox.weights.registry import build_network

Behaviour = Literal["published", "mended"]
LICENSE_TEXT = """The weights in this folder were imported from checkpoints that others trained. Their licence is the
one that those who trained them gave; this folder grants none. The software that reads them, equivox, is under
Apache-2.0.
"""


@dataclass(frozen=True, kw_only=True)
class ImportSettings:
    """What the checkpoints do not say."""

    name: str = ""
    """Name in the configuration; default: the folder's name."""
    behaviour: Behaviour = "mended"
    """How the networks are run: with our mends, or as published."""
    activation: Literal["elu", "relu"] = "elu"
    """The U-Net's activation (published default: elu); no shape shows it."""
    voxel_size_mm: float = 3.0
    """Working voxel size (published: 3)."""
    segment_size: int = 128
    """Side of the U-Net's input [voxels] (published: 128)."""
    rotate_size: int = 64
    """Longest side of the E(3)-CNN's input [voxels] (published: 64)."""
    thresholds: tuple[float, ...] = ()
    """Least probability per class; default: 0.9, 0.8, then -1 for each further class."""

    def __post_init__(self) -> None:
        if not self.voxel_size_mm > 0:
            raise ConfigError(f"--voxel-size-mm must be above 0, got {self.voxel_size_mm}; published: 3.")
        if min(self.segment_size, self.rotate_size) < 1:
            raise ConfigError(
                f"sizes must be at least 1 voxel, got {self.segment_size} and {self.rotate_size}; published: 128, 64."
            )


def import_published(
    unet: Path, pose_net: Path, out: Path, *, settings: ImportSettings | None = None, overwrite: bool = False
) -> ModelFolder:
    """Read two published checkpoints and write one model folder.

    Sizes come from the shapes; the stored constants of the E(3)-CNN are compared with ours; nothing is unpickled but
    tensors and plain values.

    Parameters
    ----------
    unet
        Lightning ``.ckpt`` of the segmentation U-Net.
    pose_net
        ``.pth`` of the E(3)-CNN.
    out
        Folder to write.
    settings
        What shapes do not show.
    overwrite
        Replace a model folder that is there.

    Raises
    ------
    ModelFolderError
        If a file is not the checkpoint it should be.
    ConfigError
        If a setting does not fit the networks.
    OutputError
        If the folder is taken or cannot be written.
    """
    chosen = settings or ImportSettings()
    networks: dict[str, dict[str, object]] = {}
    weights: dict[str, dict[str, Tensor]] = {}
    state = published_state(unet, "unet")
    networks["segment"] = unet_fields(state, activation=chosen.activation, where=str(unet))
    weights["segment"] = unet_weights(state, where=str(unet))
    state = published_state(pose_net, "pose_net")
    networks["rotate"] = pose_net_fields(state, where=str(pose_net))
    weights["rotate"] = pose_net_weights(state, where=str(pose_net))
    sources: dict[Kind, Path] = {"unet": unet, "pose_net": pose_net}
    segment = _fit(networks["segment"], weights["segment"], "unet", unet)
    rotate = _fit(networks["rotate"], weights["rotate"], "pose_net", pose_net)
    _require_sizes(segment, rotate, chosen)
    certificate = certify_cube(rotate)
    name = chosen.name or out.resolve().name
    return write_model_folder(
        out,
        name=name,
        task="pose",
        behaviour=chosen.behaviour,
        networks=networks,
        weights=weights,
        card=_card(name, networks, chosen),
        certificate=certificate,
        license_text=LICENSE_TEXT,
        extra={
            "input": {
                "frame": "voxel",
                "voxel_size_mm": chosen.voxel_size_mm,
                "size": chosen.segment_size,
                "intensity": "rescaled to [0, 1]",
            },
            "output": {"frame": "head", "axes": "as the networks were trained"},
            "settings": {"rotate_size": chosen.rotate_size, "thresholds": list(chosen.thresholds)},
            "provenance": {
                "imported_with": f"equivox {equivox.__version__}",
                "sources": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sources.values()},
            },
            "license": "unknown",
        },
        overwrite=overwrite,
    )


def _fit(fields: Mapping[str, object], weights: Mapping[str, Tensor], kind: Kind, path: Path) -> nn.Module:
    """The network with its weights, or a sentence about the first tensor that does not fit."""
    network = build_network(fields, where=str(path))
    wanted = network.state_dict()
    for name, tensor in wanted.items():
        if name not in weights:
            raise ModelFolderError(f"{path} lacks the tensor that becomes {name}; the checkpoint is not whole.")
        if weights[name].shape != tensor.shape:
            raise ModelFolderError(
                f"{path}: {name} has shape {tuple(weights[name].shape)} where {DESCRIPTIONS[kind]} of its size has "
                f"{tuple(tensor.shape)}; the checkpoint is of another version of the network."
            )
    left_over = [name for name in weights if name not in wanted]
    if left_over:
        raise ModelFolderError(f"{path} has {left_over[0]} beyond {DESCRIPTIONS[kind]} of its size; it is of another.")
    network.load_state_dict(dict(weights))
    return network.eval()


def _require_sizes(segment: nn.Module, rotate: nn.Module, settings: ImportSettings) -> None:
    """Working sizes that the networks' poolings allow, thresholds that fit the classes."""
    if not isinstance(segment, UNet) or not isinstance(rotate, PoseNet):
        raise TypeError("expected a UNet and a PoseNet")
    if settings.segment_size % segment.divisor:
        raise ConfigError(
            f"--segment-size {settings.segment_size} is not a multiple of {segment.divisor}, as the U-Net's "
            f"{segment.levels} levels need."
        )
    if settings.rotate_size < 2**rotate.poolings:
        raise ConfigError(
            f"--rotate-size {settings.rotate_size} is below {2**rotate.poolings}, the least for the E(3)-CNN's "
            f"{rotate.poolings} poolings."
        )
    classes = segment.head.out_channels
    if settings.thresholds and len(settings.thresholds) != classes:
        raise ConfigError(f"{len(settings.thresholds)} thresholds for {classes} classes; give one per class.")


def _card(name: str, networks: Mapping[str, Mapping[str, object]], settings: ImportSettings) -> str:
    """The README of an imported folder: what is known, and what is not."""
    segment, rotate = networks["segment"], networks["rotate"]
    return f"""---
license: unknown
tags: [pose-estimation, equivariance, mri, imported]
---
# {name}

Two networks of E(3)-Pose, imported from checkpoints; equivox did not train them and has not measured how well they do.

- U-Net: {segment["levels"]} levels, {segment["features"]} features, {segment["classes"]} classes, activation
  {segment["activation"]} (the checkpoint does not say it).
- E(3)-CNN: {rotate["poolings"]} poolings, kernel size {rotate["kernel_size"]}, multiplier {rotate["multiplier"]}.

## Intended use
Research on the pose of heads in MRI. Not a medical device; not for clinical decisions.

## Input
One volume; worked on at {settings.voxel_size_mm:g} mm isotropic, {settings.segment_size} voxels a side, then a crop of
{settings.rotate_size} voxels. Behaviour: {settings.behaviour}.

## Output frame
The axes of the head are those of the annotations that the networks were trained with; they need not be the frame of
equivox's own models.

## Training data, accuracy, limits
Unknown: they are in no checkpoint. Odd scalars are pooled by signed maximum, as these networks were trained, which
breaks mirror symmetry by some per cent; `certificate.json` shows how much. Set `odd_scalars` to `"absolute"` only for
networks trained so.
"""
