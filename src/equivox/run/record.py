"""``run.json``: what was run, on what, with what, and what became of it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from equivox import __version__
from equivox.formats.atomic import write_json

SCHEMA = "equivox.run/1"
RUN_JSON = "run.json"
RECORDED_PACKAGES = (
    "torch", "numpy", "scipy", "safetensors", "nibabel", "nilearn", "matplotlib", "lightning", "monai", "distributed",
)  # fmt: skip
Outcome = Literal["done", "some_failed", "nothing_done", "interrupted"]


class RunRecord:
    """Collect the facts of one run and write them as JSON.

    Parameters
    ----------
    command
        The command line, as words.
    config
        Every option as it was resolved, defaults included; JSON values only.
    seed
        Seed of everything random, None where nothing is.
    device
        What :meth:`equivox.run.device.DeviceChoice.as_dict` returns; None where nothing is computed.

    Examples
    --------
    >>> record = RunRecord(["equivox", "pose", "predict", "a.nii"], {"workers": 1})
    >>> record.add_failure("a.nii", "EQV-INPUT", "a.nii does not exist; check the path.")
    >>> record.as_dict("nothing_done")["failures"][0]["input"]
    'a.nii'
    """

    def __init__(
        self,
        command: Sequence[str],
        config: Mapping[str, object],
        *,
        seed: int | None = None,
        device: Mapping[str, str] | None = None,
    ) -> None:
        self._command = list(command)
        self._config = dict(config)
        self._seed = seed
        self._device = None if device is None else dict(device)
        self._started = datetime.now(UTC)
        self._clock = time.perf_counter()
        self._cpu = time.process_time()
        self._inputs: list[dict[str, object]] = []
        self._failures: list[dict[str, object]] = []
        self._warnings: list[dict[str, object]] = []
        self._timings: dict[str, float] = {}
        self._extra: dict[str, object] = {}

    def add_input(self, path: Path | str, *, sha256: str | None = None, **facts: object) -> None:
        """Note an input file with its checksum (computed here unless given; None for a file that is not there)."""
        file = Path(path)
        if sha256 is None and file.is_file():
            sha256 = file_sha256(file)
        self._inputs.append({"path": str(path), "sha256": sha256, **facts})

    def add_failure(self, input: str, code: str, reason: str, **facts: object) -> None:
        """Note what could not be done and why."""
        self._failures.append({"input": input, "code": code, "reason": reason, **facts})

    def add_warning(self, text: str, *, input: str | None = None) -> None:
        """Note something assumed or replaced, once."""
        entry: dict[str, object] = {"input": input, "text": text}
        if entry not in self._warnings:
            self._warnings.append(entry)

    def add(self, name: str, value: object) -> None:
        """Note a further fact (the model with its hash, ...); JSON values only."""
        self._extra[name] = value

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the wall time of a block to the timing ``name`` [s]."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._timings[name] = self._timings.get(name, 0.0) + time.perf_counter() - start

    @property
    def failure_count(self) -> int:
        """How many failures were noted."""
        return len(self._failures)

    def as_dict(self, outcome: Outcome) -> dict[str, object]:
        """The whole record."""
        timings = {**self._timings, "total": time.perf_counter() - self._clock}
        return {
            "schema": SCHEMA,
            "version": __version__,
            "outcome": outcome,
            "command": self._command,
            "config": self._config,
            "seed": self._seed,
            "device": self._device,
            "started": self._started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "timings_s": {name: round(seconds, 4) for name, seconds in timings.items()},
            "cpu_s": round(time.process_time() - self._cpu, 3),
            "versions": versions(),
            **self._extra,
            "inputs": self._inputs,
            "warnings": self._warnings,
            "failures": self._failures,
        }

    def write(self, path: Path | str, outcome: Outcome) -> None:
        """Write the record, whole or not at all."""
        write_json(path, self.as_dict(outcome))


def versions() -> dict[str, str]:
    """Python, platform, equivox and the packages that make results; those not installed are left out."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "equivox": __version__}
    for name in RECORDED_PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def file_sha256(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
