from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from equivox.errors import ConfigError
from equivox.geometry.rotations import cube_group
from equivox.nets.classifiers import CLASSIFIERS, build_classifier
from equivox.nets.classifiers_gated import so3_fields
from equivox.nn.residual import GatedConv3d
from equivox.testing import equivariance_error
from equivox.weights.registry import build_network

PUBLISHED = {
    ("tetris", 8): "tetris_steerable",
    ("tetris_cnn", 8): "tetris_cnn",
    ("shrec17", 55): "shrec17_steerable_55_classes",
    ("se3resnet34_small", 10): "cath_SE3ResNet34Small_10_classes",
    ("se3resnet34", 10): "cath_SE3ResNet34",
    ("se3resnet34_large", 10): "cath_SE3ResNet34Large",
    ("resnet34_small", 10): "cath_ResNet34Small",
    ("resnet34", 10): "cath_ResNet34",
}


def on_meta(name: str, classes: int, **options: object) -> nn.Module:
    """Without memory or work for the weights."""
    with torch.device("meta"):
        return build_classifier(name, classes=classes, **options)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("name", "classes"), PUBLISHED)
def test_every_published_network_has_the_published_number_of_parameters(
    name: str, classes: int, fixture_path: Callable[[str], Path]
) -> None:
    counts = json.loads(fixture_path("steerable/published.json").read_text())["parameter_counts"]
    assert parameters(on_meta(name, classes)) == counts[PUBLISHED[name, classes]]


def test_the_variant_with_a_small_stem_is_counted_too(fixture_path: Callable[[str], Path]) -> None:
    counts = json.loads(fixture_path("steerable/published.json").read_text())["parameter_counts"]
    assert parameters(on_meta("se3resnet34_small", 10, stem_size=3)) == counts["cath_SE3ResNet34Small_stem3"]


def test_every_layer_of_tetris_and_shrec17_is_counted(fixture_path: Callable[[str], Path]) -> None:
    published = json.loads(fixture_path("steerable/published.json").read_text())
    for name, classes, key in (("tetris", 8, "tetris_per_layer_conv"), ("shrec17", 55, "shrec17_per_layer_conv")):
        blocks = [block for block in on_meta(name, classes).modules() if isinstance(block, GatedConv3d)]
        assert [block.conv.weight.numel() for block in blocks] == published[key]


@pytest.mark.parametrize(
    ("name", "side"), [("tetris", 9), ("shrec17", 9), ("se3resnet34_small", 9), ("resnet34_small", 9)]
)
def test_a_network_gives_one_row_of_finite_logits_per_volume(name: str, side: int) -> None:
    network = build_classifier(name, classes=3, channels_in=2).eval()
    with torch.inference_mode():
        logits = network(torch.rand(2, 2, side, side, side))
    assert logits.shape == (2, 3)
    assert bool(torch.isfinite(logits).all())


def test_logits_of_the_steerable_residual_network_do_not_change_under_the_turns_of_the_cube() -> None:
    def error(name: str) -> float:
        network = build_classifier(name, classes=3).double().eval()
        draw = torch.Generator().manual_seed(0)
        turns = cube_group()[[1, 10, 19]]
        return float(
            equivariance_error(network, "1x0", "3x0", turns, generator=draw, method="grid", side=9, batch=1).max()
        )

    assert error("se3resnet34_small") < 1e-8
    assert error("resnet34_small") > 1e-4  # the plain one fails


def test_so3_fields_leaves_absent_degrees_out() -> None:
    assert str(so3_fields((4, 0, 2))).replace(" ", "") == "4x0+2x2"


def test_an_unknown_classifier_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="no classifier named 'resnet50'; known are tetris"):
        build_classifier("resnet50", classes=2)


def test_a_model_folder_may_name_every_published_classifier() -> None:
    for name in ("tetris", "resnet34_small"):
        assert name in CLASSIFIERS
        assert parameters(build_network({"architecture": name, "classes": 2})) > 0
