"""From the tensors of a published checkpoint to ours: sizes from shapes, names, and a check of derived constants.

No hyper-parameter is stored in a published checkpoint, but every size shows in a shape. Only the U-Net's activation
does not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from equivox.errors import ModelFolderError
from equivox.geometry.harmonics import spherical_harmonics
from equivox.geometry.wigner import coupling_tensor
from equivox.kernels.radial import SmoothFinite

CONSTANT_TOLERANCE = 1e-5
"""How far a stored constant may be from ours."""
IGNORED = re.compile(
    r"(^|\.)(lattice|emb|sh|sc\.bias|sc\.output_mask|tp\.weight|tp\.output_mask|gate[12]\.mul\.weight"
    r"|gate[12]\.mul\.output_mask|tp\._compiled_main_\w+\._w3j_\d+_\d+_\d+)$|^bias$"
)
"""Tensors beside the parameters that the original's layers store: constants, or empty."""
UNET_PARTS = {"0": "first", "2": "second", "4": "norm"}
POSE_PARTS = {"weight": "convolution.weight", "sc.weight": "convolution.self_connection"}
STAGES = {"1": "first", "2": "second"}


def unet_fields(state: Mapping[str, Tensor], *, activation: str, where: str) -> dict[str, object]:
    """Sizes of a published U-Net.

    Raises
    ------
    ModelFolderError
        If tensors that tell a size are missing.
    """
    levels = _count(state, r"list_encoder_blocks\.(\d+)\.")
    features, channels_in = _shape(state, "list_encoder_blocks.0.0.weight", where)[:2]
    multiplier = _shape(state, "list_encoder_blocks.1.0.weight", where)[0] // features if levels > 1 else 1
    return {
        "architecture": "unet",
        "channels_in": channels_in,
        "classes": _shape(state, "last_conv.weight", where)[0],
        "levels": levels,
        "features": features,
        "multiplier": multiplier,
        "activation": activation,
        "norm": "batch",
    }


def unet_weights(state: Mapping[str, Tensor], *, where: str) -> dict[str, Tensor]:
    """Tensors of a published U-Net under the names of :class:`equivox.nets.unet.UNet`."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        block = re.fullmatch(r"list_(encoder|decoder)_blocks\.(\d+)\.([024])\.(\w+)", name)
        if block:
            side, level, part, rest = block.groups()
            renamed[f"{side}.{level}.{UNET_PARTS[part]}.{rest}"] = tensor
        elif name.startswith("last_conv."):
            renamed[name.replace("last_conv.", "head.")] = tensor
        else:
            raise ModelFolderError(f"{where} holds {name}, which the published U-Net does not have; it is of another.")
    return renamed


def pose_net_fields(state: Mapping[str, Tensor], *, where: str) -> dict[str, object]:
    """Sizes of a published E(3)-CNN.

    Raises
    ------
    ModelFolderError
        If tensors that tell a size are missing, or two of them disagree.
    """
    radial, _ = _shape(state, "down.down_blocks.0.conv1.weight", where)
    scalars = _shape(state, "down.down_blocks.0.conv1.sc.weight", where)[0]
    lattice = state.get("down.down_blocks.0.conv1.lattice")
    taps = 2 * (radial // 2) + 1
    if lattice is not None and tuple(lattice.shape) != (taps, taps, taps, 3):
        raise ModelFolderError(
            f"{where} has kernels of {tuple(lattice.shape[:3])} taps and {radial} radial functions; the published "
            f"E(3)-CNN has {radial} of them on {taps} taps per axis."
        )
    if scalars % 7 == 0 and _shape(state, "down.down_blocks.0.conv2.sc.weight", where)[0] == 33 * (scalars // 7) ** 2:
        raise ModelFolderError(
            f"{where} is an E(3)-CNN of the original's SO(3) mode, whose fields are all even; networks of that mode "
            f"are not read as a whole. Its layers are: equivox.weights.voxel_imports.from_e3nn, one by one."
        )
    if scalars % 10:
        raise ModelFolderError(f"{where} has {scalars} first-layer scalars, not ten per base field; it is of another.")
    return {
        "architecture": "pose_net",
        "poolings": _count(state, r"down\.down_blocks\.(\d+)\.") - 1,
        "kernel_size": radial,
        "multiplier": scalars // 10,
        "odd_scalars": "signed",
        "gate_constants": "published",
    }


def pose_net_weights(state: Mapping[str, Tensor], *, where: str) -> dict[str, Tensor]:
    """Learned tensors of a published E(3)-CNN under the names of :class:`equivox.nets.pose.PoseNet`.

    Constants are compared with ours and left out.

    Raises
    ------
    ModelFolderError
        If a constant differs from ours, or a tensor is of another network.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        layer = re.fullmatch(r"down\.down_blocks\.(\d+)\.(conv|batchnorm)([12])\.(weight|bias|sc\.weight)", name)
        if name in ("out.weight", "out.sc.weight"):
            renamed["output." + POSE_PARTS[name.removeprefix("out.")].removeprefix("convolution.")] = tensor
        elif layer:
            level, kind, stage, rest = layer.groups()
            part = POSE_PARTS[rest] if kind == "conv" else f"norm.{rest}"
            renamed[f"blocks.{level}.{STAGES[stage]}.{part}"] = tensor
        elif not IGNORED.search(name):
            raise ModelFolderError(
                f"{where} holds {name}, which the published E(3)-CNN does not have; it is of another."
            )
    _check_constants(state, where)
    return renamed


def _check_constants(state: Mapping[str, Tensor], where: str) -> None:
    """Compare stored bases and coupling tensors with ours, where there are any."""
    for name, stored in state.items():
        expected = _expected_constant(name, stored, state)
        if expected is None:
            continue
        if expected.shape != stored.shape:
            raise ModelFolderError(
                f"{where}: the constant {name} has shape {tuple(stored.shape)}, ours {tuple(expected.shape)}; the "
                f"checkpoint was made with other kernels."
            )
        difference = float((stored.double() - expected).abs().max())
        if not difference <= CONSTANT_TOLERANCE:
            raise ModelFolderError(
                f"{where}: the constant {name} differs from ours by {difference:.2g}; the checkpoint is damaged or was "
                f"made with another basis, and its weights would mean something else here."
            )


def _expected_constant(name: str, stored: Tensor, state: Mapping[str, Tensor]) -> Tensor | None:
    """Our value of a stored constant in float64; None for tensors that are not compared."""
    coupling = re.search(r"_w3j_(\d+)_(\d+)_(\d+)$", name)
    if coupling:
        first, second, third = (int(degree) for degree in coupling.groups())
        if not abs(first - second) <= third <= first + second:
            return torch.zeros(0, dtype=torch.float64)
        return coupling_tensor(first, second, third)
    layer, _, kind = name.rpartition(".")
    if kind not in ("emb", "sh") or stored.dim() != 4:
        return None
    count = stored.shape[-1]
    radial = state[f"{layer}.weight"].shape[0] if f"{layer}.weight" in state else count
    half = radial // 2
    axis = torch.arange(-half, half + 1, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    if kind == "sh":
        lmax = math.isqrt(count) - 1
        return spherical_harmonics(list(range(lmax + 1)), points)
    family = SmoothFinite(count=count, start=0.0, end=radial / 2)
    return family.values(points.norm(dim=-1)).movedim(0, -1)


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """One more than the highest number at a place of the names."""
    return 1 + max((int(found.group(1)) for name in state if (found := re.match(pattern, name))), default=-1)


def _shape(state: Mapping[str, Tensor], name: str, where: str) -> tuple[int, ...]:
    """Shape of a tensor that must be there."""
    if name not in state:
        raise ModelFolderError(f"{where} lacks {name}; the checkpoint is not whole.")
    return tuple(state[name].shape)
