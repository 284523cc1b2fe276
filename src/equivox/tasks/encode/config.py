"""What the commands of ``equivox encode`` may be told; every default is named here, once."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from equivox.errors import ConfigError

DEFAULT_MODEL = "brain-encoder-t1"
VERIFY_TURNS = 4
"""Random rotations per input of ``--verify``."""


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """How scans become rows."""

    model: str = DEFAULT_MODEL
    """Name or folder of an encoder."""
    mask: str | None = None
    """Brain mask, or a folder with one per scan."""
    brain_extracted: bool = False
    """The user's word that nothing but brain is in the scans."""
    format: Literal["csv", "npz"] = "csv"
    verify: bool = False
    """Also turn each input and measure how the code follows."""
    verify_turns: int = VERIFY_TURNS
    layout: str = "auto"
    """Layout of data sets among the inputs."""
    images: str | None = None
    """Folder of the scans that a CSV table names."""
    seed: int = 0
    """Of the rotations of ``--verify``."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.verify_turns < 1:
            raise ConfigError(f"--verify-turns is {self.verify_turns}; it must be 1 or more.")

    def as_dict(self) -> dict[str, object]:
        """For the run record."""
        return asdict(self)

    def decides(self) -> dict[str, object]:
        """What changes the numbers of one scan, for ``--resume``."""
        names = ("mask", "brain_extracted", "verify", "verify_turns", "seed")
        return {name: value for name, value in asdict(self).items() if name in names}
