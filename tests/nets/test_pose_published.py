"""The E(3)-CNN against the original's numbers (fixtures 21 and 22), and its mends."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from equivox.geometry.irreps import Irreps
from equivox.geometry.rotations import cube_group
from equivox.nets.pose import PoseNet
from equivox.nets.readout import pool_axes, read_out
from equivox.weights.certificate import turn_field
from equivox.weights.published_names import pose_net_weights

FindFixture = Callable[[str], Path]


@pytest.fixture(scope="module")
def small(fixture_path: FindFixture) -> PoseNet:
    """Fixture 21's network."""
    state = load_file(fixture_path("e3pose/21_e3cnn_small.safetensors"))
    network = PoseNet(poolings=2, odd_scalars="signed", gate_constants="published")
    weights = pose_net_weights({name.removeprefix("net."): value for name, value in state.items()}, where="fixture")
    network.load_state_dict(weights)
    return network.eval()


@pytest.fixture(scope="module")
def numbers(fixture_path: FindFixture) -> dict[str, np.ndarray]:
    with np.load(fixture_path("e3pose/21_e3cnn_small_io.npz")) as file:
        return {name: file[name] for name in file.files}


def _close(ours: Tensor, theirs: np.ndarray, relative: float) -> None:
    np.testing.assert_allclose(ours.detach().numpy(), theirs, atol=relative * float(np.abs(theirs).max()), rtol=0)


def test_the_default_is_the_published_size() -> None:
    assert sum(parameter.numel() for parameter in PoseNet().parameters()) == 1_984_806


def test_every_stage_of_the_small_network(small: PoseNet, numbers: dict[str, np.ndarray]) -> None:
    seen: dict[str, Tensor] = {}
    modules = {"block0_out": small.blocks[0], "block1_out": small.blocks[1], "block2_out": small.blocks[2]}
    modules |= {"pool0_out": small.pools[0], "pool1_out": small.pools[1], "out_conv": small.output}
    for stage, part in (("1", small.blocks[0].first), ("2", small.blocks[0].second)):
        modules[f"block0_conv{stage}"] = part.convolution
        modules[f"block0_batchnorm{stage}"] = part.norm
        modules[f"block0_gate{stage}"] = part.gate
    handles = [
        module.register_forward_hook(lambda _m, _i, output, name=name: seen.__setitem__(name, output))
        for name, module in modules.items()
    ]
    field = small(torch.from_numpy(numbers["x"]))
    for handle in handles:
        handle.remove()
    compared = [name.removeprefix("inter_") for name in numbers if name.startswith("inter_")]
    assert set(compared) == set(modules)
    for name in compared:
        _close(seen[name], numbers[f"inter_{name}"], 1e-5)
    _close(field, numbers["feature_map"], 1e-5)
    _close(pool_axes(field)[0], numbers["pooled"].reshape(9), 1e-5)
    _close(read_out(pool_axes(field)).rotation[0], numbers["rotation"], 1e-5)


def test_gradients_of_the_small_network(small: PoseNet, numbers: dict[str, np.ndarray]) -> None:
    image = torch.from_numpy(numbers["x"]).requires_grad_()
    total = (small(image) * torch.from_numpy(numbers["grad_feature_map"])).sum()
    stage = small.blocks[0].first
    ours = torch.autograd.grad(
        total,
        [image, stage.convolution.weight, stage.convolution.self_connection, stage.norm.weight, small.output.weight],
    )
    theirs = ["x", *(f"net.down.down_blocks.0.{n}" for n in ("conv1.weight", "conv1.sc.weight", "batchnorm1.weight"))]
    for gradient, name in zip(ours, [*theirs, "net.out.weight"], strict=True):
        _close(gradient, numbers[f"grad_{name}"], 1e-4)


@pytest.mark.slow
def test_the_default_network_with_formula_weights(
    fixture_path: FindFixture,
    formula_weights: Callable[[int, Sequence[int]], Tensor],
    formula_input: Callable[[int], Tensor],
) -> None:
    """In float64: one pooling window holds two vectors whose lengths differ by 1.4e-7, which float32 rounding swaps."""
    state: dict[str, Tensor] = {}
    for number, (name, shape) in enumerate(
        json.loads(fixture_path("e3pose/22_e3cnn_default_parameters_in_order.json").read_text())
    ):
        h = formula_weights(number, shape)
        if "batchnorm" in name:
            h = 1 + 0.1 * h if name.endswith("weight") else 0.1 * h
        state[name.removeprefix("net.")] = h.float()
    network = PoseNet(odd_scalars="signed", gate_constants="published")
    network.load_state_dict(pose_net_weights(state, where="formula"))
    network.double().eval()
    with np.load(fixture_path("e3pose/22_default_arch_formula_weights_io.npz")) as file:
        expected = {name: file[name] for name in file.files}
    check = network.blocks[0].second.convolution.weight.detach().flatten()[:10]
    np.testing.assert_allclose(check.numpy(), expected["e3_weight_check_block0_conv2_first10"], rtol=1e-6)
    with torch.inference_mode():
        field = formula_input(32).double()
        for level, block in enumerate(network.blocks):
            field = block(network.pools[level - 1](field) if level else field)
            _close(field.abs().mean((0, 2, 3, 4)), expected[f"block{level}_mean_abs_per_channel"], 1e-4)
            for stage in (block.first, block.second):
                stage.convolution._folded.clear()  # two GB of kernels otherwise
        _close(field, expected["block4_out"], 1e-4)
        field = network.output(field)
    _close(field, expected["e3_feature_map"], 1e-4)
    _close(pool_axes(field)[0], expected["e3_pooled"].reshape(9), 1e-4)
    np.testing.assert_allclose(read_out(pool_axes(field)).rotation[0].numpy(), expected["e3_rotation"], atol=2e-4)


def test_f1_a_batch_gives_what_its_items_give(small: PoseNet) -> None:
    images = torch.rand(3, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        together = small(images)
        for item in range(3):
            alone = small(images[item : item + 1])[0]
            assert float((together[item] - alone).abs().max()) <= 1e-6 * float(alone.abs().max()) + 1e-6
        assert float((together[0] - together[1]).abs().max()) > 0.1


def test_f2_all_48_symmetries_of_the_cube_hold_with_absolute_pooling_only() -> None:
    torch.manual_seed(0)
    network = PoseNet(poolings=2, kernel_size=3, multiplier=1).double().eval()
    signed = PoseNet(poolings=2, kernel_size=3, multiplier=1, odd_scalars="signed").double().eval()
    signed.load_state_dict(network.state_dict())
    image = torch.rand(1, 1, 8, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    scalar = Irreps("1x0e")

    def error(net: PoseNet, element: Tensor) -> float:
        with torch.inference_mode():
            expected = turn_field(net(image), net.irreps_out, element)
            got = net(turn_field(image, scalar, element))
        return float((got - expected).abs().max() / expected.abs().max())

    assert max(error(network, element) for element in cube_group(improper=True)) < 1e-10
    mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64))
    assert max(error(signed, element) for element in cube_group()[:6]) < 1e-10
    assert error(signed, mirror) > 1e-3


def test_rotations_turn_with_the_image() -> None:
    torch.manual_seed(0)
    network = PoseNet(poolings=1, kernel_size=3, multiplier=1).double().eval()
    image = torch.rand(1, 1, 8, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        before = network.read(image)
        for element in cube_group()[1:6]:
            after = network.read(turn_field(image, Irreps("1x0e"), element))
            torch.testing.assert_close(after.rotation[0], element @ before.rotation[0], atol=1e-9, rtol=0)
            torch.testing.assert_close(after.confidence, before.confidence, atol=1e-9, rtol=0)


def test_f9_and_f10_evaluation_keeps_its_kernels_until_a_weight_changes(small: PoseNet) -> None:
    image = torch.rand(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    layer = small.blocks[2].second.convolution
    with torch.inference_mode():
        first = small(image)
        kept = layer._folded._kernels
        assert kept is not None
        assert torch.equal(small(image), first)
        assert layer._folded._kernels is kept
    assert not first.requires_grad
    weight = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.add_(1.0)
    with torch.inference_mode():
        assert not torch.equal(small(image), first)
    with torch.no_grad():
        layer.weight.copy_(weight)
    with torch.inference_mode():
        assert torch.equal(small(image), first)


def test_f15_so3_mode_drops_parity_and_uses_every_field() -> None:
    torch.manual_seed(0)
    network = PoseNet(poolings=1, kernel_size=3, multiplier=1, symmetry="SO3").eval()
    assert network.irreps_out.is_so3
    layer = network.blocks[0].first.convolution
    assert layer.irreps_out.is_so3
    assert len(layer.plan.active_out) == len(layer.irreps_out)  # no block of the first layer is identically zero
    image = torch.rand(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        field = network.blocks[0].first(image)
        assert float(field.abs().mean((0, 2, 3, 4)).min()) > 1e-3
        before = network(image)
        for element in cube_group()[1:4]:
            after = network(turn_field(image, Irreps("1x0"), element))
            torch.testing.assert_close(after, turn_field(before, network.irreps_out, element), atol=1e-4, rtol=1e-4)


def test_f25_building_the_default_network_assembles_no_kernel() -> None:
    network = PoseNet()
    assert all(
        module._folded._kernels is None
        for block in network.blocks
        for module in (block.first.convolution, block.second.convolution)
    )


def test_an_image_too_small_and_sizes_without_meaning_are_refused() -> None:
    with pytest.raises(ValueError, match=r"2 poolings need at least 4 voxels per side, got \(8, 8, 3\)"):
        PoseNet(poolings=2, kernel_size=3, multiplier=1)(torch.zeros(1, 1, 8, 8, 3))
    with pytest.raises(ValueError, match="kernel_size >= 2"):
        PoseNet(kernel_size=1)
