"""Which device computes, and why: the answer is printed and recorded, never guessed in silence."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from equivox.errors import ConfigError


@dataclass(frozen=True, slots=True)
class DeviceChoice:
    """A device that exists, and the reason why it was taken."""

    device: torch.device
    reason: str

    def as_dict(self) -> dict[str, str]:
        """For the run record."""
        return {"device": str(self.device), "reason": self.reason}


def choose_device(text: str = "auto") -> DeviceChoice:
    """Turn ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps`` into a device that is there.

    ``auto`` takes the first CUDA device, else the CPU. An Apple GPU is taken only when asked for, since it has no
    float64.

    Raises
    ------
    ConfigError
        If the text names no device, or one that this machine or this build of torch does not have.

    Examples
    --------
    >>> choose_device("cpu").reason
    'asked for'
    """
    if text == "auto":
        if torch.cuda.is_available():
            return DeviceChoice(torch.device("cuda", 0), f"auto: {torch.cuda.get_device_name(0)} is available")
        return DeviceChoice(torch.device("cpu"), f"auto: {_why_no_cuda()}")
    if text == "cpu":
        return DeviceChoice(torch.device("cpu"), "asked for")
    if text == "mps":
        if not torch.backends.mps.is_available():
            raise ConfigError("--device mps: this machine has no Apple GPU that torch can use; use --device cpu.")
        return DeviceChoice(torch.device("mps"), "asked for")
    match = re.fullmatch(r"cuda(?::(\d+))?", text)
    if match is None:
        raise ConfigError(f"--device {text!r} names no device; use auto, cpu, cuda, cuda:N or mps.")
    if not torch.cuda.is_available():
        raise ConfigError(f"--device {text}: {_why_no_cuda()}; use --device cpu.")
    index, count = int(match[1] or 0), torch.cuda.device_count()
    if index >= count:
        raise ConfigError(f"--device {text}: this machine has {count} CUDA device(s), numbered from 0.")
    return DeviceChoice(torch.device("cuda", index), f"asked for ({torch.cuda.get_device_name(index)})")


def _why_no_cuda() -> str:
    """One clause."""
    if torch.version.cuda is None:
        return "this build of torch has no CUDA"
    return "torch sees no CUDA device"
