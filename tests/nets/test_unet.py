"""The segmentation U-Net: sizes, norms, refusals. Numbers of the original are in test_unet_published.py."""

from __future__ import annotations

import pytest
import torch

from equivox.nets.unet import Norm, UNet


def test_the_default_is_the_published_size() -> None:
    assert sum(parameter.numel() for parameter in UNet().parameters()) == 1_460_323


@pytest.mark.parametrize("norm", ["instance", "group"])
def test_norms_without_batch_statistics_give_the_same_in_training_and_evaluation(norm: Norm) -> None:
    draw = torch.Generator().manual_seed(3)
    net = UNet(2, 4, levels=3, features=8, norm=norm)
    image = torch.randn(1, 2, 8, 12, 16, generator=draw)
    trained = net.train()(image)
    assert trained.shape == (1, 4, 8, 12, 16)
    torch.testing.assert_close(net.eval()(image), trained)


def test_gradients_pass_through_the_activations_that_work_in_place() -> None:
    draw = torch.Generator().manual_seed(5)
    net = UNet(1, 2, levels=2, features=2, norm="group").double()
    image = torch.randn(1, 1, 4, 4, 4, generator=draw, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(net, (image,), atol=1e-6)


def test_a_side_that_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match=r"multiple of 8 voxels for 4 levels, got \(16, 20, 16\)"):
        UNet(features=2)(torch.zeros(1, 1, 16, 20, 16))


def test_sizes_and_options_are_checked() -> None:
    with pytest.raises(ValueError, match="classes=0"):
        UNet(classes=0)
    with pytest.raises(ValueError, match="multiplier=0"):
        UNet(multiplier=0)
