from __future__ import annotations

import pytest
import torch

from equivox.errors import ConfigError
from equivox.run.device import choose_device


@pytest.fixture
def two_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"card {index}")


@pytest.fixture
def no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("two_cards")
def test_a_cuda_device_is_taken_by_itself_and_by_number() -> None:
    assert choose_device("auto").as_dict() == {"device": "cuda:0", "reason": "auto: card 0 is available"}
    assert str(choose_device("cuda").device) == "cuda:0"
    assert choose_device("cuda:1").as_dict() == {"device": "cuda:1", "reason": "asked for (card 1)"}
    assert choose_device("cpu").as_dict() == {"device": "cpu", "reason": "asked for"}
    with pytest.raises(ConfigError, match=r"this machine has 2 CUDA device\(s\)"):
        choose_device("cuda:2")


@pytest.mark.usefixtures("no_card")
@pytest.mark.parametrize(("build", "why"), [(None, "this build of torch has no CUDA"), ("12.8", "sees no CUDA device")])
def test_without_a_card_the_reason_is_said(monkeypatch: pytest.MonkeyPatch, build: str | None, why: str) -> None:
    monkeypatch.setattr(torch.version, "cuda", build)
    choice = choose_device("auto")
    assert choice.device.type == "cpu"
    assert why in choice.reason
    with pytest.raises(ConfigError, match=why):
        choose_device("cuda")


@pytest.mark.parametrize("text", ["-1", "gpu", "cuda:x", "", "CUDA", "cuda:-1"])
def test_a_text_that_names_no_device_is_told_which_do(text: str) -> None:
    with pytest.raises(ConfigError, match="use auto, cpu, cuda, cuda:N or mps"):
        choose_device(text)


def test_an_apple_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no Apple GPU"):
        choose_device("mps")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_chosen_card_computes() -> None:
    assert float(torch.ones(2, device=choose_device("auto").device).sum()) == 2.0
