"""Projected layers: what symmetries of the image do to them, when filters are made, and how they are exchanged."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from equivox.errors import ConfigError
from equivox.geometry.rotations import random_rotations
from equivox.geometry.so3_grids import RotationGrid, rotation_grid, square_group
from equivox.nn import (
    BlurSubsample2d,
    ProjectedConv2d,
    RotationBatchNorm2d,
    RotationLayerNorm2d,
    RotationMixing,
    fold,
)
from equivox.nn.projected_conv2d import WeightKind


def turn_image(image: Tensor, element: int) -> Tensor:
    """Turn images [y, x] by a member of the square's group: the value at p moves to g p."""
    if element >= 4:
        return turn_image(image, element - 4).flip(-1)
    return image.rot90(-element, (-2, -1))


@pytest.mark.parametrize("element", range(8))
@pytest.mark.parametrize("weight", ["ball", "cube", "cube_padded"])
@pytest.mark.parametrize("grid", ["O", "d4opt-16", "d4-fibonacci-4x4"])
def test_turning_the_image_permutes_the_rotations(element: int, weight: WeightKind, grid: str) -> None:
    draw = torch.Generator().manual_seed(3)
    layer = ProjectedConv2d(
        2, 3, 7, grid, lifting=True, weight=weight, padding="same", stride=2, generator=draw, dtype=torch.float64
    )
    later = ProjectedConv2d(3, 2, 5, grid, lifting=False, weight=weight, generator=draw, dtype=torch.float64)
    image = torch.randn(1, 2, 13, 13, generator=draw, dtype=torch.float64)
    order = layer.grid.permutation(square_group()[element])
    before = later(layer(image).relu()).unflatten(1, (len(order), 2))
    after = later(layer(turn_image(image, element)).relu()).unflatten(1, (len(order), 2))
    torch.testing.assert_close(after[:, order], turn_image(before, element), atol=1e-12, rtol=0)


def test_squares_turn_in_their_plane(generator: torch.Generator) -> None:
    layer = ProjectedConv2d(1, 3, 7, "D4", lifting=True, weight="square", generator=generator, dtype=torch.float64)
    image = torch.randn(1, 1, 13, 13, generator=generator, dtype=torch.float64)
    for element in range(8):
        order = layer.grid.permutation(square_group()[element])
        before, after = (layer(one).unflatten(1, (8, 3)) for one in (image, turn_image(image, element)))
        torch.testing.assert_close(after[:, order], turn_image(before, element), atol=1e-12, rtol=0)
    with pytest.raises(ConfigError, match="turns out of it"):
        layer.set_grid("O")


def test_a_plain_convolution_does_not_permute(generator: torch.Generator) -> None:
    """The control: independent filters per rotation fail by the size of the answer itself."""
    order = rotation_grid("O").permutation(square_group()[1])
    plain = nn.Conv2d(1, 24, 7, padding=3, dtype=torch.float64)
    image = torch.randn(1, 1, 13, 13, generator=generator, dtype=torch.float64)
    apart = plain(turn_image(image, 1))[:, order] - turn_image(plain(image), 1)
    assert float(apart.detach().std()) > 0.3 * float(plain(image).detach().std())


@pytest.mark.parametrize("lifting", [True, False])
def test_a_layer_is_a_loop_over_its_rotations(lifting: bool, generator: torch.Generator) -> None:
    grid = rotation_grid("T")
    layer = ProjectedConv2d(2, 3, 5, grid, lifting=lifting, padding=1, generator=generator)
    with torch.no_grad():
        assert layer.bias is not None
        layer.bias.copy_(torch.randn(3, generator=generator))
    field = torch.randn(2, 2 if lifting else 24, 9, 9, generator=generator)
    parts = [field] * 12 if lifting else list(field.unflatten(1, (12, 2)).unbind(1))
    pairs = zip(parts, layer.filters(), strict=True)
    expected = torch.cat([functional.conv2d(part, one, layer.bias, padding=1) for part, one in pairs], dim=1)
    torch.testing.assert_close(layer(field), expected, atol=1e-5, rtol=0)
    some = layer(field if lifting else field[:, 4:10], rotations=slice(2, 5))
    torch.testing.assert_close(some, expected[:, 6:15], atol=1e-5, rtol=0)


@pytest.mark.parametrize("stride", [1, 2])
def test_profiles_and_filters_give_the_same_numbers_and_gradients(stride: int, generator: torch.Generator) -> None:
    layers = [
        ProjectedConv2d(
            2, 3, 9, "d4opt-32", lifting=True, stride=stride, padding="valid", evaluation=way, dtype=torch.float64
        )
        for way in ("filters", "profiles")
    ]
    layers[1].load_state_dict(layers[0].state_dict())
    assert [layer.uses_profiles() for layer in layers] == [False, True]
    image = torch.randn(2, 2, 21, 21, generator=generator, dtype=torch.float64)
    one, two = (layer(image) for layer in layers)
    torch.testing.assert_close(one, two, atol=1e-12, rtol=0)
    (one * torch.linspace(0, 1, one.shape[1])[:, None, None]).square().sum().backward()
    (two * torch.linspace(0, 1, one.shape[1])[:, None, None]).square().sum().backward()
    torch.testing.assert_close(layers[0].weight.grad, layers[1].weight.grad, atol=1e-8, rtol=1e-10)


def test_filters_start_with_the_he_variance_at_every_rotation() -> None:
    draw = torch.Generator().manual_seed(0)
    grid = RotationGrid("drawn", random_rotations(6, generator=draw))
    layer = ProjectedConv2d(8, 400, 7, grid, lifting=True, generator=draw)
    size = layer.filters().detach().square().mean(dim=(1, 2, 3, 4)).sqrt()
    expected = math.sqrt(2.0 / (8 * 49))
    assert float(size.mean()) == pytest.approx(expected, rel=0.02)
    assert float((size / size.mean() - 1).abs().max()) < 0.02
    cubes = ProjectedConv2d(8, 100, 7, grid, lifting=True, weight="cube", generator=draw)
    assert float(cubes.filters().detach().square().mean().sqrt()) == pytest.approx(expected, rel=0.05)


CHANGES: dict[str, Callable[[ProjectedConv2d], object]] = {
    "optimiser": lambda layer: _step(layer),
    "load_state_dict": lambda layer: layer.load_state_dict({**layer.state_dict(), "weight": layer.weight * 2}),
    "data": lambda layer: setattr(layer.weight, "data", layer.weight.data + 1),
    "grid": lambda layer: layer.set_grid("T"),
    "dtype": lambda layer: layer.double(),
}


def _step(layer: ProjectedConv2d) -> None:
    with torch.enable_grad():
        layer.filters().sum().backward()
    torch.optim.SGD([layer.weight], lr=0.001).step()
    layer.weight.grad = None


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("evaluation", ["filters", "profiles"])
def test_filters_are_made_once_in_evaluation_and_anew_after_a_change(change: str, evaluation: str) -> None:
    draw = torch.Generator().manual_seed(1)
    layer = ProjectedConv2d(1, 2, 7, "O", lifting=True, evaluation=evaluation, generator=draw).eval()  # type: ignore[arg-type]
    image = torch.randn(1, 1, 9, 9, generator=draw)
    with torch.no_grad():
        for _ in range(4):
            layer(image)
        assert layer.filters_made == 1
        CHANGES[change](layer)
        made = layer.filters_made
        changed = layer(image.to(layer.weight.dtype))
        layer(image.to(layer.weight.dtype))
        assert layer.filters_made == made + 1
        fresh = ProjectedConv2d(1, 2, 7, layer.grid, lifting=True, evaluation="filters", dtype=layer.weight.dtype)
        fresh.load_state_dict(layer.state_dict())
        torch.testing.assert_close(changed, fresh(image.to(layer.weight.dtype)), atol=1e-5, rtol=1e-5)
    layer.train()
    for _ in range(2):
        layer(image.to(layer.weight.dtype))
    assert layer.filters_made == made + 3


def test_evaluation_with_gradients_does_not_use_kept_filters(generator: torch.Generator) -> None:
    layer = ProjectedConv2d(1, 2, 5, "O", lifting=True, generator=generator).eval()
    with torch.no_grad():
        layer(torch.zeros(1, 1, 9, 9))
    layer(torch.randn(1, 1, 9, 9, generator=generator)).square().sum().backward()
    assert layer.weight.grad is not None
    assert float(layer.weight.grad.abs().sum()) > 0


def test_gradients_are_those_of_finite_differences(generator: torch.Generator) -> None:
    for weight in ("ball", "cube", "square"):
        grid = "C4" if weight == "square" else "T"
        layer = ProjectedConv2d(1, 2, 5, grid, lifting=True, weight=weight, dtype=torch.float64)  # type: ignore[arg-type]
        image = torch.randn(1, 1, 5, 5, generator=generator, dtype=torch.float64)

        def answer(value: Tensor, layer: ProjectedConv2d = layer, image: Tensor = image) -> Tensor:
            found: Tensor = torch.func.functional_call(layer, {"weight": value}, (image,))
            return found.square().sum()

        assert torch.autograd.gradcheck(answer, (layer.weight.detach().clone().requires_grad_(),))


def test_the_grid_is_exchanged_without_touching_the_weights(generator: torch.Generator) -> None:
    layer = ProjectedConv2d(1, 2, 7, "d4opt-64", lifting=True, generator=generator).eval()
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    layer.set_grid("O")
    image = torch.randn(1, 1, 9, 9, generator=generator)
    assert layer(image).shape[1] == 48
    layer.set_grid("d4opt-64")
    assert set(before) == {"weight", "bias"}
    for name, value in layer.state_dict().items():
        torch.testing.assert_close(value, before[name])


@pytest.mark.parametrize("mixing", ["none", "kernel"])
@pytest.mark.parametrize("lifting", [True, False])
def test_folding_gives_plain_convolutions_with_the_same_numbers(
    mixing: str, lifting: bool, generator: torch.Generator
) -> None:
    layer = ProjectedConv2d(2, 3, 5, "T", lifting=lifting, stride=2, mixing=mixing, generator=generator).eval()  # type: ignore[arg-type]
    field = torch.randn(2, 2 if lifting else 24, 11, 11, generator=generator)
    plain = fold(layer)
    assert not [part for part in plain.modules() if isinstance(part, ProjectedConv2d | RotationMixing)]
    with torch.no_grad():
        torch.testing.assert_close(plain(field), layer(field), atol=1e-5, rtol=0)
    if mixing == "none":
        made = layer.fold()
        assert (made.groups, made.stride) == (1 if lifting else 12, (2, 2))
    else:
        with pytest.raises(ConfigError, match=r"use equivox\.nn\.fold"):
            layer.fold()


def test_filters_are_built_outside_autocast(generator: torch.Generator) -> None:
    layer = ProjectedConv2d(1, 2, 9, "O", lifting=True, generator=generator)
    exact = layer.filters().detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer.filters().dtype == torch.float32
        torch.testing.assert_close(layer.filters().detach(), exact, atol=1e-6, rtol=0)
        assert layer(torch.zeros(1, 1, 11, 11)).dtype == torch.bfloat16


def test_copies_share_the_grid_and_start_without_filters(generator: torch.Generator) -> None:
    layer = ProjectedConv2d(1, 2, 5, "O", lifting=True, generator=generator).eval()
    with torch.no_grad():
        layer(torch.zeros(1, 1, 7, 7))
    copied = copy.deepcopy(layer)
    assert copied.grid is layer.grid
    assert copied._kept is None


def test_mixing_commutes_with_every_permutation(generator: torch.Generator) -> None:
    grid = rotation_grid("d4opt-32")
    mixing = RotationMixing(grid, dtype=torch.float64)
    with torch.no_grad():
        mixing.log_kernel.normal_(generator=generator)
    matrix = mixing.matrix().detach()
    torch.testing.assert_close(matrix.sum(dim=1), torch.ones(32, dtype=torch.float64))
    assert float((matrix - torch.eye(32)).abs().max()) > 0.5
    for element in square_group():
        order = grid.permutation(element)
        torch.testing.assert_close(matrix[order][:, order], matrix, atol=1e-12, rtol=0)
    with pytest.raises(ConfigError, match="more than 576"):
        mixing.set_grid(rotation_grid("fibonacci-64x16"))


def test_norms_treat_all_rotations_alike(generator: torch.Generator) -> None:
    field = torch.randn(4, 24, 5, 5, generator=generator, dtype=torch.float64) * 3 + 1
    order = torch.randperm(8, generator=generator)
    for norm in (RotationBatchNorm2d(3, 8, dtype=torch.float64), RotationLayerNorm2d(3, dtype=torch.float64)):
        turned = field.unflatten(1, (8, 3))[:, order].flatten(1, 2)
        expected = norm(field).unflatten(1, (8, 3))[:, order].flatten(1, 2)
        torch.testing.assert_close(norm(turned), expected, atol=1e-12, rtol=0)
        count = sum(parameter.numel() for parameter in norm.parameters())
        assert count == 6
    plain = nn.BatchNorm2d(24, dtype=torch.float64)
    with torch.no_grad():  # the control: statistics of single channels remember which rotation they came from
        plain(field)
        plain.eval()
        apart = plain(turned).unflatten(1, (8, 3)) - plain(field).unflatten(1, (8, 3))[:, order]
        assert float(apart.abs().max()) > 1e-3
    with pytest.raises(ValueError, match="wrong layout"):
        RotationBatchNorm2d(5, 8)(torch.zeros(1, 24, 2, 2))


def test_a_batch_norm_folds_into_the_convolution_before_it(generator: torch.Generator) -> None:
    network = nn.Sequential(
        ProjectedConv2d(1, 3, 5, "T", lifting=True, generator=generator), RotationBatchNorm2d(3, 12), nn.ReLU()
    )
    image = torch.randn(4, 1, 9, 9, generator=generator)
    network(image)
    network.eval()
    plain = fold(network)
    assert [type(part).__name__ for part in plain] == ["Conv2d", "Identity", "ReLU"]  # type: ignore[attr-defined]
    with torch.no_grad():
        torch.testing.assert_close(plain(image), network(image), atol=1e-5, rtol=0)


def test_blur_is_binomial_and_symmetric(generator: torch.Generator) -> None:
    for taps, line in ((3, [1.0, 2.0, 1.0]), (5, [1.0, 4.0, 6.0, 4.0, 1.0])):
        kernel = torch.tensor(line, dtype=torch.float64)
        kernel = (kernel[:, None] * kernel) / kernel.sum() ** 2
        image = torch.randn(1, 1, 13, 13, generator=generator, dtype=torch.float64)
        expected = functional.conv2d(image, kernel[None, None], stride=2)
        found = BlurSubsample2d(taps)(image)
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
        torch.testing.assert_close(BlurSubsample2d(taps)(image.rot90(1, (2, 3))), found.rot90(1, (2, 3)))
    with pytest.raises(ConfigError, match="odd number of taps"):
        BlurSubsample2d(2)


def test_the_weight_is_a_volume_whose_projections_are_the_filters(generator: torch.Generator) -> None:
    """Seen along z at the identity: the sum over voxels is the first filter, where the ball fits into the volume."""
    layer = ProjectedConv2d(2, 3, 7, "O", lifting=True, generator=generator, dtype=torch.float64)
    volume = layer.as_volume(9)
    seen = volume.sum(dim=-1).mT[..., 1:-1, 1:-1]  # [x, y] to [y, x]
    torch.testing.assert_close(seen, layer.filters().detach()[0], atol=1e-10, rtol=0)
    cubes = ProjectedConv2d(2, 3, 7, "O", lifting=True, weight="cube", generator=generator, dtype=torch.float64)
    torch.testing.assert_close(cubes.as_volume().mean(dim=-1).mT, cubes.filters().detach()[0], atol=1e-12, rtol=0)
    with pytest.raises(ConfigError, match="no volume of 7 voxels"):
        ProjectedConv2d(1, 1, 7, "C4", lifting=True, weight="square").as_volume()


def test_a_layer_says_how_equivariant_it_is() -> None:
    assert "in_plane_error=0.0097" in repr(ProjectedConv2d(1, 1, 7, "O", lifting=True))
    assert "in_plane_error=0.38" in repr(ProjectedConv2d(1, 1, 7, "O", lifting=True, weight="cube"))


def test_wrong_arguments_say_what_to_do() -> None:
    with pytest.raises(ConfigError, match="odd and at least 3"):
        ProjectedConv2d(1, 1, 4, "O", lifting=True)
    with pytest.raises(ValueError, match="24 rotations x 2"):
        ProjectedConv2d(2, 1, 5, "O", lifting=False)(torch.zeros(1, 2, 9, 9))
    layer = ProjectedConv2d(1, 1, 5, "O", lifting=True, mixing="kernel")
    with pytest.raises(ConfigError, match="cannot be evaluated a few rotations"):
        layer(torch.zeros(1, 1, 9, 9), rotations=slice(0, 4))
