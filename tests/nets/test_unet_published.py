"""The U-Net against the original's numbers (fixtures 20 and 22)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from equivox.nets.unet import UNet
from equivox.weights.published_names import unet_weights

FindFixture = Callable[[str], Path]


def _formula_unet(fixture_path: FindFixture, formula_weights: Callable[[int, Sequence[int]], Tensor]) -> UNet:
    """The default U-Net with the fixtures' weights."""
    listed = json.loads(fixture_path("e3pose/22_unet_default_parameters_in_order.json").read_text())
    state: dict[str, Tensor] = {}
    for number, (name, shape) in enumerate(listed):
        h = formula_weights(number, shape)
        if len(shape) == 5:
            value = h / math.sqrt(math.prod(shape[1:]))
        else:
            value = 1 + 0.1 * h if name.endswith(".4.weight") else 0.1 * h
        state[name] = value.float()
    network = UNet()
    network.load_state_dict({**network.state_dict(), **unet_weights(state, where="formula")})
    return network.eval()


def test_trained_small_network_in_evaluation_and_in_training(fixture_path: FindFixture) -> None:
    state = load_file(fixture_path("e3pose/20_unet_small.safetensors"))
    with np.load(fixture_path("e3pose/20_unet_small_io.npz")) as file:
        numbers = {name: file[name] for name in file.files}
    network = UNet(levels=3, features=4)
    network.load_state_dict(unet_weights(state, where="fixture"))
    image = torch.from_numpy(numbers["x"])
    network.eval()
    with torch.inference_mode():
        np.testing.assert_allclose(network.encoder[0](image).numpy(), numbers["encoder_block0_eval"], atol=1e-5)
        np.testing.assert_allclose(network(image).numpy(), numbers["y_eval"], atol=1e-5)
    network.train()
    np.testing.assert_allclose(network(image).detach().numpy(), numbers["y_train"], atol=1e-5)
    after = network.state_dict()
    statistics = {
        name.removeprefix("after_train_step_"): torch.from_numpy(value)
        for name, value in numbers.items()
        if name.startswith("after_train_step_")
    }
    assert len(statistics) == 10
    for name, value in unet_weights(statistics, where="fixture").items():
        torch.testing.assert_close(after[name], value, atol=1e-5, rtol=1e-5)


def test_default_network_with_formula_weights(
    fixture_path: FindFixture,
    formula_weights: Callable[[int, Sequence[int]], Tensor],
    formula_input: Callable[[int], Tensor],
) -> None:
    network = _formula_unet(fixture_path, formula_weights)
    with np.load(fixture_path("e3pose/22_default_arch_formula_weights_io.npz")) as file:
        expected, check = file["unet_output"], file["unet_weight_check_enc0_2_first10"]
        corner = file["e3_input_corner"]
    np.testing.assert_allclose(network.encoder[0].second.weight.detach().flatten()[:10].numpy(), check, rtol=1e-6)
    image = formula_input(32)
    np.testing.assert_allclose(image[0, 0, :4, :4, :4].numpy(), corner, atol=1e-6)
    with torch.inference_mode():
        output = network(image)[:, :, ::2, ::2, ::2].numpy()
    np.testing.assert_allclose(output, expected, atol=1e-5 * float(np.abs(expected).max()))
