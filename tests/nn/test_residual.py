"""Published blocks: gated, with the norm folded into the convolution, with both kinds of stride, by norm; residual."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from equivox.kernels.radial import GaussianShells
from equivox.nn import (
    FieldBatchNorm,
    GatedConv3d,
    GatedResidual3d,
    NormSoftplus,
    PaddedBatchNorm,
    SteerableConv3d,
)
from equivox.testing import assert_equivariant

FixturePath = Callable[[str], Path]


def blocks_of(multiplicities: np.ndarray) -> list[tuple[int, int]]:
    return [(int(count), degree) for degree, count in enumerate(multiplicities)]


def layout(blocks: list[tuple[int, int]]) -> str:
    return "+".join(f"{count}x{degree}" for count, degree in blocks)


def turned(matrix: Tensor, field: np.ndarray | Tensor) -> Tensor:
    return torch.einsum("ab,nbxyz->naxyz", matrix, torch.as_tensor(field))


@pytest.mark.parametrize("index", [0, 1, 2])
def test_gated_blocks_of_se3cnn(index: int, se3cnn: Any, fixture_path: FixturePath) -> None:
    data = np.load(fixture_path("steerable/se3cnn_blocks.npz"))
    tag = f"gb{index}_"
    config = ast.literal_eval(str(data[tag + "cfg"]))
    before, after = blocks_of(data[tag + "repr_in"]), blocks_of(data[tag + "repr_out"])
    block = GatedConv3d(
        layout(before),
        layout(after),
        config["size"],
        padding=config["padding"],
        stride=config["stride"],
        subsample="lowpass" if config.get("smooth_stride") else "plain",
        norm="input" if config["normalization"] else None,
        dtype=torch.float64,
    ).eval()
    gates = (sum(count for count, degree in after if degree), 0)
    se3cnn.load(block.conv, data[tag + "p_conv.kernel.weight"], before, [*after, gates])
    assert block.gate is not None
    assert block.gate.bias is not None
    with torch.no_grad():
        biases = [data[tag + "p_scalar_act.bias"], data[tag + "p_gate_act.bias"]]
        block.gate.bias.copy_(torch.from_numpy(np.concatenate(biases)))
    if block.norm is not None:
        block.norm.running_mean.copy_(torch.from_numpy(data[tag + "p_conv.running_mean"]))
        block.norm.running_var.copy_(torch.from_numpy(data[tag + "p_conv.running_var"]))
    with torch.no_grad():
        result = turned(se3cnn.to_ours(after), block(turned(se3cnn.to_ours(before).mT, data[tag + "x"])))
    np.testing.assert_allclose(result.numpy(), data[tag + "y_eval"], atol=1e-10, rtol=0)


def test_norm_blocks_of_se3cnn(se3cnn: Any, fixture_path: FixturePath) -> None:
    data = np.load(fixture_path("steerable/se3cnn_blocks.npz"))
    before, after = [(2, 0), (1, 1)], [(2, 0), (1, 1), (1, 2)]
    radial = GaussianShells.for_kernel(3, ball=False)
    conv = SteerableConv3d(layout(before), layout(after), 3, radial=radial, dtype=torch.float64)
    se3cnn.load(conv, data["nb_p_conv.kernel.weight"], before, after)
    activation = NormSoftplus(layout(after), dtype=torch.float64)
    with torch.no_grad():
        activation.bias.copy_(torch.from_numpy(data["nb_p_act.bias"]))
        result = activation(conv(turned(se3cnn.to_ours(before).mT, data["nb_x"])))
    result = turned(se3cnn.to_ours(after), result)
    np.testing.assert_allclose(result.numpy(), data["nb_y"], atol=1e-10, rtol=0)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_batch_norm_on_the_input_as_se3cnn_folds_it(mode: str, se3cnn: Any, fixture_path: FixturePath) -> None:
    data = np.load(fixture_path("steerable/se3cnn_norms.npz"))
    before, after = [(3, 0), (2, 1), (1, 2)], [(2, 0), (1, 1)]
    norm = PaddedBatchNorm(layout(before), 1, dtype=torch.float64)
    radial = GaussianShells.for_kernel(3, ball=False)
    conv = SteerableConv3d(layout(before), layout(after), 3, radial=radial, padding=0, dtype=torch.float64)
    se3cnn.load(conv, data["bnconv_weight"], before, after)
    field = turned(se3cnn.to_ours(before).mT, data["bn_x"])
    with torch.no_grad():
        kernel = torch.einsum("ab,bcxyz,dc->adxyz", se3cnn.to_ours(after), conv.kernel(), se3cnn.to_ours(before))
        np.testing.assert_allclose(kernel.numpy(), data["bnconv_kernel_plain"], atol=1e-12, rtol=0)
        result = conv(norm(field))
        np.testing.assert_allclose(norm.running_mean.numpy(), data["bnconv_running_mean"], atol=1e-10, rtol=0)
        np.testing.assert_allclose(norm.running_var.numpy(), data["bnconv_running_var"], atol=1e-10, rtol=0)
        if mode == "eval":
            result = conv(norm.eval()(field))
    result = turned(se3cnn.to_ours(after), result)
    np.testing.assert_allclose(result.numpy(), data[f"bnconv_y_{mode}"], atol=1e-10, rtol=0)


def test_the_padded_norm_is_a_batch_norm_inside_and_differs_at_the_border(generator: torch.Generator) -> None:
    conv = SteerableConv3d("2x0+1x1", "2x0", 3, basis="se3cnn", generator=generator, dtype=torch.float64)
    valid = SteerableConv3d("2x0+1x1", "2x0", 3, basis="se3cnn", padding=0, dtype=torch.float64)
    valid.load_state_dict(conv.state_dict())
    field = torch.randn(2, 5, 6, 6, 6, generator=generator, dtype=torch.float64) + 1
    plain = FieldBatchNorm("2x0+1x1", affine=False, second_moment="norm", dtype=torch.float64)
    with torch.no_grad():
        difference = (valid(PaddedBatchNorm("2x0+1x1", 1, dtype=torch.float64)(field)) - conv(plain(field))).abs()
    assert float(difference[..., 1:-1, 1:-1, 1:-1].max()) < 1e-12
    assert float(difference.max()) > 1e-2


def randomise(network: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        for name, buffer in network.named_buffers():
            buffer.copy_(torch.rand(buffer.shape, generator=generator, dtype=torch.float64) + ("var" in name))


@pytest.mark.parametrize("subsample", ["plain", "lowpass", "average"])
@pytest.mark.parametrize("parity", ["", "e"])
def test_gated_blocks_are_exact_on_the_cube(subsample: str, parity: str, generator: torch.Generator) -> None:
    before = f"2x0{parity}+1x1{'o' if parity else ''}"
    after = f"3x0{parity}+1x1{'o' if parity else ''}+1x2{parity}"
    block = GatedConv3d(before, after, 3, stride=2, subsample=subsample, norm="input", dtype=torch.float64)  # type: ignore[arg-type]
    randomise(block, generator)
    assert_equivariant(block.eval(), before, after, side=7, batch=1)


def test_the_residual_block_is_the_published_one(generator: torch.Generator) -> None:
    """One non-linearity, none after the sum; the shortcut has the kernel's size; padding counts in its average."""
    block = GatedResidual3d("2x0+2x1+2x2+2x3", "4x0+4x1+4x2+4x3", "4x0+4x1+4x2+4x3", stride=2, dtype=torch.float64)
    counts = [part.conv.weight.numel() for part in (block.first, block.second, block.shortcut) if part is not None]
    assert counts == [424, 608, 304]
    assert sum(parameter.numel() for parameter in block.parameters()) == 424 + 608 + 304 + 16
    randomise(block, generator)
    assert_equivariant(block.eval(), block.irreps_in, block.irreps_out, side=5, batch=1)
    field = torch.randn(1, 32, 5, 5, 5, generator=generator, dtype=torch.float64)
    assert block.shortcut is not None
    inner = block.shortcut.conv(block.shortcut.norm(field))  # type: ignore[misc]
    expected = nn.functional.avg_pool3d(inner, 3, stride=2, padding=1, count_include_pad=True)
    torch.testing.assert_close(block(field), block.second(block.first(field)) + expected)
    assert GatedResidual3d("2x0+1x1", "2x0+1x1", "2x0+1x1").shortcut is None
