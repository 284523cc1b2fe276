"""Folded networks: the same numbers, plain modules, exported programs, not slower."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equivox.nn import (
    AveragePool3d,
    BlurPool3d,
    FieldBatchNorm,
    FieldDropout,
    FieldGroupNorm,
    FieldInstanceNorm,
    FieldLinear,
    Gate,
    GatedConv3d,
    GatedResidual3d,
    GlobalPool,
    LowPass3d,
    NormActivation,
    NormMaxPool3d,
    SteerableConv3d,
    SteerableUpConv3d,
    TensorProductActivation,
    Upsample3d,
    fold,
)

LAYOUT = "3x0e+2x0o+2x1o+1x1e+1x2e"
PLAIN = ("torch.nn.", "equivox.nn.plain")


def randomise(network: nn.Module, generator: torch.Generator) -> nn.Module:
    """Weights, and running statistics that are no identity."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        for name, buffer in network.named_buffers():
            buffer.copy_(torch.rand(buffer.shape, generator=generator, dtype=torch.float64) + ("var" in name))
    return network.eval()


PUBLISHED: dict[str, Any] = {"norm": "input", "grid": "any", "stride": 2}
LAYERS: dict[str, tuple[Any, str]] = {
    "convolution": (lambda: SteerableConv3d(LAYOUT, LAYOUT, 3), LAYOUT),
    "strided convolution": (lambda: SteerableConv3d(LAYOUT, "4x0e+2x1o", 3, stride=2, grid="any"), LAYOUT),
    "zero channels": (lambda: SteerableConv3d("2x0e+1x1e", "2x0e+1x0o+1x1o", 3), "2x0e+1x1e"),
    "self-connection": (lambda: SteerableConv3d(LAYOUT, LAYOUT, 3, basis="e3nn"), LAYOUT),
    "batch norm": (lambda: FieldBatchNorm(LAYOUT), LAYOUT),
    "instance norm": (lambda: FieldInstanceNorm(LAYOUT), LAYOUT),
    "summing instance norm": (lambda: FieldInstanceNorm(LAYOUT, second_moment="norm", affine=False), LAYOUT),
    "instance norm by maximum": (lambda: FieldInstanceNorm(LAYOUT, reduce="max"), LAYOUT),
    "group norm": (lambda: FieldGroupNorm(LAYOUT), LAYOUT),
    "gate": (lambda: Gate("3x0e+2x0o", "2x1o+1x2e", bias=True), "2x0o+6x0e+2x1o+1x2e"),
    "dropout": (lambda: FieldDropout(LAYOUT, 0.5), LAYOUT),
    "norm activation": (lambda: NormActivation(LAYOUT), LAYOUT),
    "low-pass": (lambda: LowPass3d(2.0, voxel_size_mm=(1, 1, 2)), LAYOUT),
    "blur": (lambda: BlurPool3d((2, 2, 1), grid="any"), LAYOUT),
    "upsampling": (lambda: Upsample3d((2, 1, 2)), LAYOUT),
    "published upsampling": (lambda: Upsample3d(2, normalization="published"), LAYOUT),
    "average": (lambda: AveragePool3d(3, stride=2, padding=1, grid="any"), LAYOUT),
    "average inside": (lambda: AveragePool3d(3, stride=1, padding=1, count_padding=False), LAYOUT),
    "norm max": (lambda: NormMaxPool3d(LAYOUT, (2, 2, 1), grid="any"), LAYOUT),
    "linear": (lambda: FieldLinear(LAYOUT, "4x0e+1x0o+2x1o", bias=True), LAYOUT),
    "product": (lambda: TensorProductActivation(LAYOUT), LAYOUT),
    "up-convolution": (lambda: SteerableUpConv3d(LAYOUT, "2x0e+1x1o", 3), LAYOUT),
    "gated block": (lambda: GatedConv3d("2x0+1x1", "3x0+2x1", 3, padding=2, **PUBLISHED), "2x0+1x1"),
    "strided block": (lambda: GatedConv3d("2x0+1x1", "3x0", 3, subsample="plain", **PUBLISHED), "2x0+1x1"),
    "block without norm": (lambda: GatedConv3d("2x0+1x1", "3x0+2x1", 3), "2x0+1x1"),
    "residual": (lambda: GatedResidual3d("2x0+1x1", "3x0+2x1", "3x0+2x1", stride=2, grid="any"), "2x0+1x1"),
}  # fmt: skip


@pytest.mark.parametrize("kind", LAYERS)
def test_every_layer_gives_the_same_numbers_when_folded(kind: str, generator: torch.Generator) -> None:
    make, layout = LAYERS[kind]
    layer = randomise(make().double(), generator)
    channels = FieldBatchNorm(layout).irreps.dimension
    field = torch.randn(2, channels, 5, 6, 7, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        expected = layer(field)
        folded = fold(layer)
        torch.testing.assert_close(folded(field), expected, atol=1e-10, rtol=1e-10)
        assert folded(field[:1]).shape == expected[:1].shape
        single = fold(layer.float())(field.float())
    scale = float(expected.abs().max())
    assert float((single.double() - expected).abs().max()) < 1e-5 * scale
    if kind not in ("norm activation", "product", "instance norm by maximum"):
        kinds = {f"{type(part).__module__}.{type(part).__name__}" for part in folded.modules()}
        allowed = (*PLAIN, "equivox.nn.residual.GatedResidual3d", "equivox.nn.up_conv3d")
        assert all(name.startswith(allowed) for name in kinds), kinds


class Chained(nn.Module):
    """A network with a forward of its own."""

    fold_chain = ("conv", "norm")

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate("4x0", "2x1+1x2", even="silu")
        self.norm = FieldBatchNorm(self.gate.irreps_in)
        self.conv = SteerableConv3d("1x0", self.gate.irreps_in, 3)
        self.drop = FieldDropout(self.gate.irreps_out, 0.3)
        self.pool = BlurPool3d(2)
        self.last = nn.Sequential(
            SteerableConv3d(self.gate.irreps_out, "4x0+2x1", 3), FieldBatchNorm("4x0+2x1"), GlobalPool("4x0+2x1")
        )
        self.head = nn.Linear(10, 3)

    def forward(self, field: Tensor) -> Tensor:
        """Apply."""
        field = self.pool(self.drop(self.gate(self.norm(self.conv(field)))))
        result: Tensor = self.head(self.last(field))
        return result


def test_batch_norms_vanish_into_convolutions_and_the_network_is_left_alone(generator: torch.Generator) -> None:
    network = randomise(Chained().double(), generator).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    folded = fold(network)
    assert network.training
    assert not any(isinstance(part, (FieldBatchNorm, FieldDropout, SteerableConv3d)) for part in folded.modules())
    assert [type(part).__name__ for part in folded.last] == ["Conv3d", "Identity", "GlobalPool"]  # type: ignore[union-attr, arg-type]
    assert isinstance(folded.norm, nn.Identity)
    field = torch.randn(2, 1, 9, 9, 9, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(folded(field), network.eval()(field), atol=1e-10, rtol=1e-10)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    assert not any(parameter.requires_grad for parameter in folded.parameters())


def test_a_layer_used_twice_stays_one_and_plain_networks_fold_too(generator: torch.Generator) -> None:
    shared = SteerableConv3d("2x0+1x1", "2x0+1x1", 3)
    folded = fold(nn.Sequential(shared, shared))
    assert folded[0] is folded[1]  # type: ignore[index]
    plain = randomise(nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2), nn.ReLU()), generator).float()
    assert isinstance(fold(plain)[1], nn.Identity)  # type: ignore[index]


@pytest.mark.parametrize("second", [True, False])
def test_a_norm_behind_a_layer_that_is_used_twice_is_not_folded_into_it(second: bool) -> None:
    shared = SteerableConv3d("2x0", "2x0", 3)
    layers = [shared, FieldBatchNorm("2x0"), shared] if second else [shared, shared, FieldBatchNorm("2x0")]
    network = nn.Sequential(*layers).double().eval()
    with torch.no_grad():
        network.get_buffer("1.running_var" if second else "2.running_var").fill_(9.0)
    field = torch.randn(1, 2, 5, 5, 5, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(fold(network)(field), network(field))
