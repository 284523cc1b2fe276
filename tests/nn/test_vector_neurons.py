from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from equivox.errors import ConfigError
from equivox.geometry.rotations import random_rotations
from equivox.nn.vector_attention import VectorAttention
from equivox.nn.vector_frames import (
    InvariantReadout,
    VectorFrame,
    cross_product,
    gram_invariants,
    gram_matrix,
    in_frame,
    orthonormal_frame,
)
from equivox.nn.vector_neurons import (
    VectorBatchNorm,
    VectorLeakyReLU,
    VectorLinear,
    VectorLinearLeakyReLU,
    VectorMaxPool,
    VectorRMSNorm,
    mean_pool_vectors,
    mix_vectors,
    require_vectors,
    vector_layer_norm,
    vector_rms_norm,
)

INPUTS = ("x3", "x4", "x5")
TOLERANCE = 1e-5
"""Of the fixtures: float32, another order of sums."""


@pytest.fixture(scope="module")
def reference(fixture_path: Callable[[str], Path]) -> dict[str, Tensor]:
    with np.load(fixture_path("soe/vn_layers.npz"), allow_pickle=False) as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive.files}


def near(found: Tensor, expected: Tensor) -> None:
    assert_close(found, expected, atol=TOLERANCE, rtol=0)


def put(parameter: Tensor, value: Tensor) -> None:
    with torch.no_grad():
        parameter.copy_(value)


@pytest.mark.parametrize("name", INPUTS)
def test_linear_map_as_published(reference: dict[str, Tensor], name: str) -> None:
    near(mix_vectors(reference[name], reference["linear.W"]), reference[f"linear.{name}.y"])
    layer = VectorLinear(6, 8)
    put(layer.weight, reference["linear.W"])
    near(layer(reference[name]), reference[f"linear.{name}.y"])


@pytest.mark.parametrize("kind", ["full", "shared"])
@pytest.mark.parametrize("slope", [0.2, 0.0])
def test_leaky_relu_as_published(reference: dict[str, Tensor], kind: str, slope: float) -> None:
    layer = VectorLeakyReLU(6, slope=slope, shared=kind == "shared")
    put(layer.direction.weight, reference[f"leaky.{kind}.s{slope}.U"])
    for name in INPUTS:
        near(layer(reference[name]), reference[f"leaky.{kind}.s{slope}.{name}.y"])


@pytest.mark.parametrize("name", INPUTS)
def test_batch_norm_as_published(reference: dict[str, Tensor], name: str) -> None:
    layer = VectorBatchNorm(6)
    put(layer.weight, reference[f"bn.{name}.gamma"])
    put(layer.bias, reference[f"bn.{name}.beta"])
    near(layer(reference[name]), reference[f"bn.{name}.train.y"])
    near(layer.running_mean, reference[f"bn.{name}.running_mean"])
    near(layer.running_var, reference[f"bn.{name}.running_var"])
    near(layer.eval()(reference[name]), reference[f"bn.{name}.eval.y"])


@pytest.mark.parametrize("kind", ["full", "shared"])
@pytest.mark.parametrize("name", INPUTS)
def test_linear_and_leaky_relu_as_published(reference: dict[str, Tensor], name: str, kind: str) -> None:
    layer = VectorLinearLeakyReLU(6, 8, shared=kind == "shared", norm="batch")
    put(layer.linear.weight, reference[f"linleaky.{name}.{kind}.W"])
    put(layer.direction.weight, reference[f"linleaky.{name}.{kind}.U"])
    near(layer(reference[name]), reference[f"linleaky.{name}.{kind}.train.y"])
    assert isinstance(layer.norm, VectorBatchNorm)
    near(layer.norm.running_mean, reference[f"linleaky.{name}.{kind}.running_mean"])
    near(layer.norm.running_var, reference[f"linleaky.{name}.{kind}.running_var"])
    near(layer.eval()(reference[name]), reference[f"linleaky.{name}.{kind}.eval.y"])


def test_pools_as_published(reference: dict[str, Tensor]) -> None:
    layer = VectorMaxPool(6)
    put(layer.direction.weight, reference["maxpool.U"])
    assert torch.equal(layer.chosen(reference["x4"]), reference["maxpool.x4.index"].long())
    for name in ("x4", "x5"):
        near(layer(reference[name]), reference[f"maxpool.{name}.y"])
        near(mean_pool_vectors(reference[name]), reference[f"meanpool.{name}.y"])


def frame_of(reference: dict[str, Tensor], prefix: str, kind: str) -> VectorFrame:
    layer = VectorFrame(16, kind=kind, norm="batch", length="published")
    for number, part in ((1, layer.first), (2, layer.second)):
        put(part.linear.weight, reference[f"{prefix}.vn{number}.map_to_feat.weight"])
        put(part.direction.weight, reference[f"{prefix}.vn{number}.map_to_dir.weight"])
        assert isinstance(part.norm, VectorBatchNorm)
        for ours in ("weight", "bias", "running_mean", "running_var"):
            put(getattr(part.norm, ours), reference[f"{prefix}.vn{number}.batchnorm.bn.{ours}"])
    put(layer.last.weight, reference[f"{prefix}.vn_lin.weight"])
    return layer.eval()


@pytest.mark.parametrize("kind", ["free", "orthonormal"])
@pytest.mark.parametrize("name", ["xs3", "xs4", "xs5"])
def test_coordinates_in_a_frame_as_published(reference: dict[str, Tensor], name: str, kind: str) -> None:
    layer = frame_of(reference, f"std.{name}.{kind}", kind)
    frame = layer(reference[name])
    near(frame, reference[f"std.{name}.{kind}.frame"])
    near(in_frame(reference[name], frame), reference[f"std.{name}.{kind}.y"])


def test_attention_norms_gram_and_cross_product(reference: dict[str, Tensor]) -> None:
    layer = VectorAttention(6, heads=2)
    for part, key in ((layer.query, "Wq"), (layer.key, "Wk"), (layer.value, "Wv"), (layer.out, "Wo")):
        put(part.weight, reference[f"attention.{key}"])
    near(layer.weights(reference["attention.x"]), reference["attention.attn"])
    near(layer(reference["attention.x"]), reference["attention.y"])
    vectors = reference["gram.V"]
    near(gram_matrix(vectors), reference["gram.G"])
    near(torch.linalg.svdvals(vectors), reference["gram.sv"])
    near(vector_layer_norm(vectors), reference["vnlayernorm.y"])
    near(vector_rms_norm(vectors), reference["vnrmsnorm.y"])
    near(VectorRMSNorm(12)(vectors), reference["vnrmsnorm.y"])
    near(cross_product(vectors[:, :6], vectors[:, 6:]), reference["cross.y"])


def test_every_reference_array_is_used(reference: dict[str, Tensor]) -> None:
    assert len(reference) == 208
    roots = {name.split(".")[0] for name in reference} - {"R", *INPUTS, "xs3", "xs4", "xs5"}
    assert roots == {
        "linear", "leaky", "bn", "linleaky", "maxpool", "meanpool", "std", "std_batch3", "attention", "gram",
        "vnlayernorm", "vnrmsnorm", "cross",
    }  # fmt: skip


class AttendedTokens(nn.Module):
    """Attention seen as a layer of (batch, channel, 3, sample)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = VectorAttention(8, heads=2).double()

    def forward(self, vectors: Tensor) -> Tensor:
        return self.layer(vectors.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: VectorLinear(8, 5),
    "leaky": lambda: VectorLeakyReLU(8),
    "leaky shared": lambda: VectorLeakyReLU(8, shared=True),
    "linear leaky": lambda: VectorLinearLeakyReLU(8, 6),
    "batch norm": lambda: VectorBatchNorm(8),
    "rms norm": lambda: VectorRMSNorm(8),
    "max pool": lambda: VectorMaxPool(8),
    "attention": AttendedTokens,
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("batch", [1, 2, 3, 4])
def test_layers_commute_with_rotations_and_reflections(name: str, batch: int, generator: torch.Generator) -> None:
    layer = LAYERS[name]().double()
    vectors = torch.randn(batch, 8, 3, 3, generator=generator, dtype=torch.float64)
    for turn in (random_rotations(1, generator=generator)[0], -random_rotations(1, generator=generator)[0]):
        turned = torch.einsum("xy,bcy...->bcx...", turn, vectors)
        expected = torch.einsum("xy,bcy...->bcx...", turn, layer(vectors))
        assert_close(layer(turned), expected, atol=1e-10, rtol=0)


def test_a_cross_product_of_polar_vectors_is_axial(generator: torch.Generator) -> None:
    first, second = torch.randn(2, 3, 4, 3, generator=generator, dtype=torch.float64)
    turn = -random_rotations(1, generator=generator)[0]
    found = cross_product(first @ turn.mT, second @ turn.mT)
    assert_close(found, -(cross_product(first, second) @ turn.mT), atol=1e-12, rtol=0)


# The five defects of the published layers, gone.


def test_the_frame_of_a_batch_of_three_is_right(reference: dict[str, Tensor], generator: torch.Generator) -> None:
    """Defect 1: a cross product that takes the first axis of size 3."""
    layer = frame_of(reference, "std_batch3", "orthonormal")
    frame = layer(reference["std_batch3.x"])
    near(frame, reference["std_batch3.correct.frame"])
    near(in_frame(reference["std_batch3.x"], frame), reference["std_batch3.correct.y"])
    assert float((frame - reference["std_batch3.published_variant.frame"]).detach().abs().max()) > 0.1
    ours = VectorFrame(16, generator=generator).double()
    vectors = torch.randn(3, 16, 3, 3, generator=generator, dtype=torch.float64)
    frame = ours(vectors)
    identity = torch.eye(3, dtype=torch.float64)[None, :, :, None].expand(3, -1, -1, 3)
    assert_close(torch.einsum("bxk...,bxl...->bkl...", frame, frame), identity, atol=1e-12, rtol=0)
    turn = random_rotations(1, generator=generator)[0]
    turned = torch.einsum("xy,bcy...->bcx...", turn, vectors)
    assert_close(in_frame(turned, ours(turned)), in_frame(vectors, frame), atol=1e-10, rtol=0)


def test_the_combined_layer_can_be_made_and_learns(generator: torch.Generator) -> None:
    """Defect 2: the published LinearAndLeakyReLU raises TypeError when it is constructed."""
    layer = VectorLinearLeakyReLU(4, 3, generator=generator)
    layer(torch.randn(2, 4, 3, generator=generator)).square().sum().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in layer.parameters())


def test_a_matrix_of_scalars_is_refused() -> None:
    """Defect 3: on a matrix the published linear layer silently is an ordinary one."""
    for shape in ((4, 6), (4, 6, 2), (4, 5, 3)):
        with pytest.raises(ValueError, match="expects vectors"):
            require_vectors(torch.zeros(shape), 6, "VectorLinear")


def test_zero_vectors_stay_finite_both_ways() -> None:
    """Defect 4: batch norm divided by the length."""
    for layer in (VectorBatchNorm(2), VectorRMSNorm(2), VectorLinearLeakyReLU(2, 2), VectorLeakyReLU(2)):
        vectors = torch.zeros(4, 2, 3, requires_grad=True)
        result = layer(vectors)
        result.sum().backward()
        assert bool(torch.isfinite(result).all())
        assert vectors.grad is not None
        assert bool(torch.isfinite(vectors.grad).all())
    frame = orthonormal_frame(torch.zeros(2, 3), torch.zeros(2, 3))
    assert bool(torch.isfinite(frame).all())


def test_a_read_out_learns_an_offset(generator: torch.Generator) -> None:
    """Defect 5: without a bias a head is 0 wherever its input is."""
    head = InvariantReadout(4, 1, hidden=8, generator=generator)
    vectors = torch.randn(16, 4, 3, generator=generator)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        loss = (head(vectors) - 47.3 / 16.7).square().mean() + (head(0 * vectors) - 47.3 / 16.7).square().mean()
        loss.backward()
        optimizer.step()
    assert abs(float(head(torch.zeros(1, 4, 3)).detach()) - 47.3 / 16.7) < 0.1
    turn = random_rotations(1, generator=generator)[0].float()
    assert_close(head(vectors @ turn.mT), head(vectors), atol=1e-4, rtol=0)


def test_gram_invariants_are_the_upper_triangle(generator: torch.Generator) -> None:
    vectors = torch.randn(2, 3, 3, generator=generator)
    gram = gram_matrix(vectors)
    expected = torch.stack([gram[:, i, j] for i in range(3) for j in range(i, 3)], dim=1)
    assert_close(gram_invariants(vectors), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_layers_run_in_any_precision(dtype: torch.dtype, generator: torch.Generator) -> None:
    vectors = torch.randn(2, 8, 3, 4, generator=generator).to(dtype)
    for name in ("linear leaky", "max pool", "rms norm"):
        assert LAYERS[name]().to(dtype)(vectors).dtype == dtype


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        VectorLinear(0, 3)
    with pytest.raises(ConfigError, match="norm is"):
        VectorLinearLeakyReLU(3, 3, norm="layer")
    with pytest.raises(ConfigError, match="heads do not divide"):
        VectorAttention(5, heads=2)
    with pytest.raises(ConfigError, match="needs 4 vectors"):
        VectorFrame(3)
