"""The published networks by their counts, and whole networks under turns of the image."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equivox.errors import ConfigError
from equivox.geometry.rotations import rotation_about
from equivox.geometry.so3_grids import rotation_grid, square_group
from equivox.nets.projected import ProjectedClassifier, ProjectedFeatures
from equivox.nets.projected_presets import PRESETS, build_projected, preset_fields
from equivox.nn import fold
from equivox.weights.registry import build_network

PUBLISHED = {
    "linear_cryo45": 2026, "linear_cifar33": 32680, "linear_gz2_45": 48608, "so3_one_filter_cryo45": 91126,
    "so3_cryo45": 63369, "so2_cryo45": 74137, "conv_cryo45": 74054, "so3_cifar33": 48842, "so2_cifar33": 51178,
    "conv_cifar33": 51104, "conv_gz2_45": 560176,
}  # fmt: skip
UNCERTAIN = {"so2_gz2_73": 802568, "so3_gz2_89": 691784}
CLOSED = ("O", "healpix-2", *(f"d4opt-{size}" for size in (16, 24, 32, 64, 72, 128, 256, 576)),
          *(f"d4-fibonacci-{size}" for size in ("8x8", "16x8", "32x8")))  # fmt: skip
"""Every grid of the fixture that is closed under the square's symmetries."""


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def build(name: str, **options: Any) -> nn.Module:
    preset = PRESETS[name]
    return build_projected(name, channels_in=preset.channels_in, classes=preset.classes, **options)


@pytest.mark.parametrize(("name", "parameters"), [*PUBLISHED.items(), *UNCERTAIN.items()])
def test_published_networks_have_the_published_counts(name: str, parameters: int) -> None:
    network = build(name)
    assert count(network) == parameters == PRESETS[name].parameters
    assert PRESETS[name].certain == (name in PUBLISHED)
    assert network.receptive_field_px == PRESETS[name].side_px


@pytest.mark.parametrize("name", [name for name, preset in PRESETS.items() if preset.side_px <= 45])
def test_every_preset_answers_a_crop_and_is_described_by_its_fields(name: str, generator: torch.Generator) -> None:
    preset = PRESETS[name]
    network = build(name).eval()
    crop = torch.randn(2, preset.channels_in, preset.side_px, preset.side_px, generator=generator)
    fields = preset_fields(name, channels_in=preset.channels_in, classes=preset.classes)
    again = build_network({key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()})
    again.load_state_dict(network.state_dict())
    with torch.no_grad():
        logits = network(crop)
        assert logits.shape == (2, preset.classes)
        torch.testing.assert_close(again.eval()(crop), logits)
        torch.testing.assert_close(network.score_map(crop)[..., 0, 0], logits)  # type: ignore[operator]


def test_our_networks_are_small() -> None:
    assert count(build("ball_cryo45_3k")) <= 3_000
    assert count(build("ball_cryo45_15k")) <= 15_000
    assert count(build("ball_cifar33")) <= 15_000
    assert count(build("ball_gz2_45")) <= 15_000
    prototype = ProjectedClassifier(kernel_sizes=(9, 7, 7, 7), subsampling="plain")
    assert count(prototype) == 2_733


def turn_image(image: Tensor, element: int) -> Tensor:
    """The square's group on images [y, x]."""
    return image.rot90(-(element % 4), (-2, -1)).flip(-1) if element >= 4 else image.rot90(-element, (-2, -1))


@pytest.mark.parametrize("grid", CLOSED)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_turns_and_mirrors_permute_the_rotations_of_a_whole_network(
    grid: str, dtype: torch.dtype, tolerance: float, generator: torch.Generator
) -> None:
    network = ProjectedClassifier(grid=grid, channels=(2, 2), kernel_sizes=(5, 5, 3), generator=generator).to(dtype)
    side = network.receptive_field_px
    image = torch.randn(1, 1, side + 4, side + 4, generator=generator, dtype=dtype)
    network(torch.randn(2, 1, side, side, generator=generator, dtype=dtype))
    network.eval()
    with torch.no_grad():
        before = network.rotation_logits(image)
        for element in (1, 4, 7):  # a quarter turn, a mirror, and a product of both
            after = network.rotation_logits(turn_image(image, element))
            order = network.grid.permutation(square_group()[element])
            apart = (after[:, order] - turn_image(before, element)).abs().max() / before.abs().max()
            assert float(apart) <= tolerance
            whole = (
                network.score_map(turn_image(image, element)) - turn_image(network.score_map(image), element)
            ).abs()
            assert float(whole.max()) <= tolerance * float(before.abs().max())


@pytest.mark.parametrize(
    "options",
    [{"subsampling": "plain", "kernel_sizes": (9, 7, 7, 7)}, {"norm": "layer"}, {"mixing": "kernel"},
     {"weight": "cube", "aggregation": "al1"}, {"norm": "none", "aggregation": "max"}, {"subsampling": "none"},
     {"aggregation": "mean", "bias": False}, {"learn_effective_count": True, "richness": "rich"}],
)  # fmt: skip
def test_every_option_keeps_the_logit_under_turns(options: dict[str, Any], generator: torch.Generator) -> None:
    network = ProjectedClassifier(
        grid="O", channels=(2, 3, 4), generator=generator, **{"kernel_sizes": (7, 5, 5, 5), **options}
    )
    network = network.double().eval()
    side = network.receptive_field_px
    image = torch.randn(1, 1, side, side, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        expected = network(image)
        for element in range(1, 8):
            torch.testing.assert_close(network(turn_image(image, element)), expected, atol=1e-10, rtol=1e-10)


def blobs(angle_deg: float, sigma: float, *, side: int, images: int) -> Tensor:
    """Images of 12 Gaussian blobs, turned analytically about the centre."""
    draw = torch.Generator().manual_seed(5)
    centres = (torch.rand(images, 12, 2, generator=draw, dtype=torch.float64) - 0.5) * 0.8 * side
    sizes = torch.randn(images, 12, 1, 1, generator=draw, dtype=torch.float64)
    centres = centres @ rotation_about("z", angle_deg)[:2, :2].mT
    axis = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    far = (x - centres[..., 0, None, None]) ** 2 + (y - centres[..., 1, None, None]) ** 2
    return (sizes * torch.exp(-far / (2 * sigma**2))).sum(dim=1, keepdim=True)


def turned_error(network: ProjectedClassifier, angle_deg: float) -> tuple[float, float]:
    """Error of the features relative to their spread, and of the aggregated logit relative to its own."""
    side = network.receptive_field_px
    order = network.grid.permutation(rotation_about("z", angle_deg))
    with torch.no_grad():
        before, after = (blobs(angle, 1.5, side=side, images=24) for angle in (0.0, angle_deg))
        one, two = (network.rotation_logits(image)[..., 0, 0] for image in (before, after))
        logits = network(before), network(after)
    spread = float((logits[0] - logits[0].mean()).square().mean().sqrt())
    return (
        float((two[:, order] - one).square().mean().sqrt() / one.std()),
        float((logits[1] - logits[0]).square().mean().sqrt()) / spread,
    )


@pytest.mark.parametrize("angle_deg", [15.0, 30.0, 45.0])
def test_networks_are_equivariant_between_the_pixels_where_cubes_are_not(angle_deg: float) -> None:
    """Three layers, 96 rotations whose in-plane angles are multiples of 15 degrees (projection2d.md 3.6)."""
    found = {}
    for weight in ("ball", "cube"):
        draw = torch.Generator().manual_seed(2)
        network = ProjectedClassifier(
            grid="d4-fibonacci-4x24", channels=(4, 8), classes=8, kernel_sizes=(9, 7, 7), weight=weight,  # type: ignore[arg-type]
            subsampling="none", norm="none", generator=draw,
        )  # fmt: skip
        found[weight] = turned_error(network.double().eval(), angle_deg)
    assert found["ball"][0] <= 0.03
    assert found["ball"][1] <= 0.01
    assert found["cube"][0] > 0.2


@pytest.mark.parametrize("subsampling", ["blur", "plain"])
def test_a_whole_image_is_scored_like_its_crops(subsampling: str, generator: torch.Generator) -> None:
    network = ProjectedClassifier(
        channels=(2, 3), kernel_sizes=(7, 5, 5), subsampling=subsampling, generator=generator  # type: ignore[arg-type]
    ).double().eval()  # fmt: skip
    side, step = network.receptive_field_px, network.step_px
    image = torch.randn(1, 1, side + 5, side + 7, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        scores, dense = network.score_map(image), network.score_map(image, dense=True)
        for row in range(scores.shape[2]):
            for column in range(scores.shape[3]):
                crop = image[..., step * row : step * row + side, step * column : step * column + side]
                torch.testing.assert_close(network(crop), scores[..., row, column])
        assert dense.shape[2:] == (6, 8)
        torch.testing.assert_close(dense[..., ::step, ::step], scores)
        torch.testing.assert_close(network(image[..., 1 : 1 + side, 3 : 3 + side]), dense[..., 1, 3])
        torch.testing.assert_close(network.score_map(image, rotations_at_once=7), scores)
    with pytest.raises(ValueError, match="score_map"):
        network(image)


def test_a_trained_network_takes_another_grid(generator: torch.Generator) -> None:
    network = ProjectedClassifier(grid="O", channels=(3, 4), kernel_sizes=(7, 5, 5), generator=generator)
    side = network.receptive_field_px
    images = torch.randn(4, 1, side, side, generator=generator)
    network(images)
    network.eval()
    with torch.no_grad():
        before = network(images)
        network.set_grid("d4opt-64")
        finer = network(images)
        network.set_grid("d4opt-128")
        finest = network(images)
    assert network.effective_count == 24.0
    spread = float(finest.std())
    assert float((finest - finer).abs().max()) < 0.3 * spread
    assert float((before - finest).std()) < 2.0 * spread
    plain = fold(network)
    with torch.no_grad():
        torch.testing.assert_close(plain(images), finest, atol=1e-4, rtol=1e-4)


def test_features_keep_their_rotation(generator: torch.Generator) -> None:
    trunk = ProjectedFeatures(3, (2, 5), (7, 5), "d4opt-16", generator=generator)
    assert (trunk.step_px, trunk.receptive_field_px, trunk.channels_out) == (2, 17, 5)
    image = torch.randn(2, 3, 17, 17, generator=generator)
    assert trunk(image).unflatten(1, (16, 5)).shape == (2, 16, 5, 1, 1)
    assert len(rotation_grid("d4opt-16")) == 16


def test_the_weight_of_every_parameter_reaches_the_loss(generator: torch.Generator) -> None:
    network = ProjectedClassifier(
        classes=2, grid="T", channels=(2, 3), kernel_sizes=(7, 5, 5), mixing="kernel", learn_effective_count=True,
        generator=generator,
    )  # fmt: skip
    side = network.receptive_field_px
    loss = nn.functional.cross_entropy(
        network(torch.randn(6, 1, side, side, generator=generator)), torch.tensor([0, 1] * 3)
    )
    loss.backward()  # type: ignore[no-untyped-call]
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        if "conv.bias" not in name:  # what a batch norm takes out again
            assert float(parameter.grad.abs().max()) > 0, name
    assert math.isfinite(float(loss.detach()))


def test_wrong_names_and_options_say_what_to_do() -> None:
    with pytest.raises(ConfigError, match="did you mean 'so3_cryo45'"):
        build_projected("so3_cryo_45")
    with pytest.raises(ConfigError, match="has no rotations"):
        build_projected("conv_cryo45", grid="O")
    with pytest.raises(ConfigError, match="no such argument"):
        build_projected("conv_cryo45", colour="blue")
    with pytest.raises(ConfigError, match="kernel sizes do not fit"):
        ProjectedClassifier(channels=(2, 3), kernel_sizes=(7, 5))
