from __future__ import annotations

import socket

import pytest
import torch


def test_a_connection_that_leaves_the_machine_is_refused() -> None:
    with socket.socket() as probe, pytest.raises(RuntimeError, match=r"network connection to '192\.0\.2\.1'"):
        probe.connect(("192.0.2.1", 80))


def test_the_generator_repeats_itself(generator: torch.Generator) -> None:
    again = torch.Generator().manual_seed(generator.initial_seed())
    assert torch.equal(torch.rand(4, generator=generator), torch.rand(4, generator=again))
