"""Grids that break the cube's symmetry are refused with the rule; the rule is exactly where the symmetry breaks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from equivox.errors import ConfigError, GridSymmetryError
from equivox.nn import AveragePool3d, BlurPool3d, GatedConv3d, LowPass3d, NormMaxPool3d, SteerableConv3d
from equivox.nn.grids import GridRule
from equivox.testing import assert_equivariant

LAYOUT = "2x0+1x1"


def make(kind: str, grid: GridRule) -> nn.Module:
    layers: dict[str, nn.Module] = {
        "convolution of 3": SteerableConv3d(LAYOUT, LAYOUT, 3, stride=2, grid=grid),
        "convolution of 5, padding 1": SteerableConv3d(LAYOUT, LAYOUT, 5, stride=3, padding=1, grid=grid),
        "dilated convolution": SteerableConv3d(LAYOUT, LAYOUT, 3, stride=2, dilation=2, padding=1, grid=grid),
        "even convolution": SteerableConv3d(LAYOUT, LAYOUT, 4, stride=2, padding=1, grid=grid, basis="se3cnn"),
        "low-pass": LowPass3d(2.0, stride=2, grid=grid),
        "blur": BlurPool3d(3, grid=grid),
        "average of 2": AveragePool3d(2, grid=grid),
        "average of 3, padded": AveragePool3d(3, stride=2, padding=1, grid=grid),
        "norm max": NormMaxPool3d(LAYOUT, 2, grid=grid),
        "gated": GatedConv3d(LAYOUT, LAYOUT, 3, stride=2, subsample="average", grid=grid),
    }
    return layers[kind].double().eval()


@pytest.mark.parametrize("side", [6, 7, 8, 9])
@pytest.mark.parametrize(
    "kind",
    ["convolution of 3", "convolution of 5, padding 1", "dilated convolution", "even convolution", "low-pass", "blur"]
    + ["average of 2", "average of 3, padded", "norm max", "gated"],
)
def test_what_is_refused_is_exactly_what_breaks_the_cube(kind: str, side: int) -> None:
    field = torch.zeros(1, 5, side, side, side, dtype=torch.float64)
    try:
        make(kind, "symmetric")(field)
    except GridSymmetryError:
        with pytest.raises(AssertionError, match="not equivariant"):
            assert_equivariant(make(kind, "any"), LAYOUT, LAYOUT, side=side, batch=1)
    else:
        assert_equivariant(make(kind, "symmetric"), LAYOUT, LAYOUT, side=side, batch=1)


def test_the_sentence_holds_the_rule_the_axis_and_the_nearest_sides() -> None:
    with pytest.raises(GridSymmetryError, match=r"off centre along y.*\(side \+ 2 padding - window\).*to 7 or 9, or"):
        BlurPool3d(2)(torch.zeros(1, 1, 9, 8, 9))
    assert issubclass(GridSymmetryError, ConfigError)
    assert issubclass(GridSymmetryError, ValueError)
    assert BlurPool3d((2, 2, 1))(torch.zeros(1, 1, 9, 9, 8)).shape == (1, 1, 5, 5, 8)
