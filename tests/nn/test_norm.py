"""Norms per field against published numbers, and their laws."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from equivox.nn import FieldBatchNorm, FieldGroupNorm, FieldInstanceNorm
from equivox.testing import assert_equivariant

FixturePath = Callable[[str], Path]
LAYOUT = "2x0e+1x0o+2x1o+1x2e"


@pytest.mark.parametrize("kind", ["instance", "batch"])
def test_e3pose_norms_their_gradients_and_statistics(kind: str, fixture_path: FixturePath) -> None:
    data = np.load(fixture_path("e3pose/05_batchnorm.npz"))
    layout = json.loads(str(data["meta"]))["irreps"]
    norm = FieldInstanceNorm(layout) if kind == "instance" else FieldBatchNorm(layout)
    weights = {name: torch.from_numpy(data[f"{kind}_{name}"]) for name in ("weight", "bias")}
    norm.load_state_dict(weights, strict=False)
    field = torch.from_numpy(data[f"{kind}_x"]).transpose(1, 2).contiguous().requires_grad_()
    result = norm(field)
    result.backward(torch.from_numpy(data[f"{kind}_grad_y"]).transpose(1, 2))
    assert field.grad is not None
    assert norm.weight is not None
    assert norm.bias is not None
    pairs = [
        (result.transpose(1, 2), "train_y"),
        (field.grad.transpose(1, 2), "train_grad_x"),
        (norm.weight.grad, "train_grad_weight"),
        (norm.bias.grad, "train_grad_bias"),
        (norm.eval()(field).transpose(1, 2), "eval_y"),
    ]
    if isinstance(norm, FieldBatchNorm):
        pairs += [(norm.running_mean, "running_mean_after1"), (norm.running_var, "running_var_after1")]
    for own, name in pairs:
        assert own is not None
        np.testing.assert_allclose(own.detach().numpy(), data[f"{kind}_{name}"], atol=1e-5, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("tag", ["component", "norm", "max", "instance", "noaffine"])
def test_e3nn_norms_in_double_precision(tag: str, fixture_path: FixturePath) -> None:
    data = np.load(fixture_path("steerable/e3nn_batchnorm.npz"))
    options = {"norm": {"second_moment": "norm"}, "max": {"reduce": "max"}, "noaffine": {"affine": False}}.get(tag, {})
    kind = FieldInstanceNorm if tag == "instance" else FieldBatchNorm
    norm = kind(str(data["irreps"]), dtype=torch.float64, **options)  # type: ignore[arg-type]
    if tag != "noaffine":
        norm.load_state_dict(
            {name: torch.from_numpy(data[f"{tag}_{name}"]) for name in ("weight", "bias")}, strict=False
        )
    field = torch.from_numpy(data[f"{tag}_x"]).transpose(1, 2).contiguous()
    result = norm(field).transpose(1, 2).detach().numpy()
    np.testing.assert_allclose(result, data[f"{tag}_y_train"], atol=1e-12, rtol=0)
    if isinstance(norm, FieldBatchNorm):
        np.testing.assert_allclose(norm.running_mean.numpy(), data[f"{tag}_running_mean"], atol=1e-12, rtol=0)
        np.testing.assert_allclose(norm.running_var.numpy(), data[f"{tag}_running_var"], atol=1e-12, rtol=0)
        later = norm.eval()(field).transpose(1, 2).detach().numpy()
        np.testing.assert_allclose(later, data[f"{tag}_y_eval"], atol=1e-12, rtol=0)


def test_se3cnn_batch_norm(fixture_path: FixturePath) -> None:
    data = np.load(fixture_path("steerable/se3cnn_norms.npz"))
    layout = "+".join(f"{mul}x{(dimension - 1) // 2}" for mul, dimension in data["Rs_mul_dim"])
    norm = FieldBatchNorm(layout, second_moment="norm", dtype=torch.float64)
    norm.load_state_dict({name: torch.from_numpy(data[f"bn_{name}"]) for name in ("weight", "bias")}, strict=False)
    field = torch.from_numpy(data["bn_x"])
    np.testing.assert_allclose(norm(field).detach().numpy(), data["bn_y_train"], atol=1e-10, rtol=0)
    np.testing.assert_allclose(norm.running_mean.numpy(), data["bn_running_mean"], atol=1e-10, rtol=0)
    np.testing.assert_allclose(norm.running_var.numpy(), data["bn_running_var"], atol=1e-10, rtol=0)
    np.testing.assert_allclose(norm.eval()(field).detach().numpy(), data["bn_y_eval"], atol=1e-10, rtol=0)


def test_se3cnn_group_norm(fixture_path: FixturePath) -> None:
    data = np.load(fixture_path("steerable/se3cnn_norms.npz"))
    layout = "+".join(f"{mul}x{(dimension - 1) // 2}" for mul, dimension in data["Rs_mul_dim"])
    norm = FieldGroupNorm(layout, second_moment="norm", dtype=torch.float64)
    norm.load_state_dict({name: torch.from_numpy(data[f"gn_{name}"]) for name in ("weight", "bias")})
    for mode in (True, False):
        result = norm.train(mode)(torch.from_numpy(data["bn_x"])).detach().numpy()
        np.testing.assert_allclose(result, data["gn_y"], atol=1e-10, rtol=0)


def test_group_norm_with_blocks_of_one_copy_is_instance_norm(generator: torch.Generator) -> None:
    field = torch.randn(2, 8, 3, 3, 3, generator=generator)
    single = FieldGroupNorm("1x0e+1x0e+1x1o+1x1o")
    torch.testing.assert_close(single(field), FieldInstanceNorm("2x0e+2x1o")(field))


@pytest.mark.parametrize("kind", [FieldInstanceNorm, FieldBatchNorm, FieldGroupNorm])
@pytest.mark.parametrize("layout", [LAYOUT, "2x0+1x1"])
def test_norms_are_exact_on_the_cube(
    kind: type[FieldInstanceNorm] | type[FieldBatchNorm] | type[FieldGroupNorm], layout: str, generator: torch.Generator
) -> None:
    norm = kind(layout, dtype=torch.float64)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    assert_equivariant(norm, layout, layout, side=4)
    assert_equivariant(norm.eval(), layout, layout, side=4)


def test_a_large_mean_does_not_spoil_a_small_variance(generator: torch.Generator) -> None:
    field = 1000 + 0.1 * torch.randn(2, 1, 8, 8, 8, generator=generator)
    result = FieldInstanceNorm("1x0e", eps=1e-12)(field).detach()
    assert float(result.std()) == pytest.approx(1.0, abs=0.02)
    assert abs(float(result.mean())) < 0.02


def test_odd_scalars_and_vectors_are_never_shifted() -> None:
    field = torch.ones(1, 4, 2, 2, 2)
    result = FieldInstanceNorm("1x0o+1x1o")(field).detach()
    assert float((result - 1).abs().max()) < 1e-4
