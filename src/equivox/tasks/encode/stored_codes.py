"""Codes of `equivox encode embed` read back for a probe, with what each scan's marker says of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.formats.markers import ITEMS
from equivox.formats.subjects import Subject
from equivox.run.record import file_sha256
from equivox.tasks.encode.data import open_brain
from equivox.tasks.encode.results import Array, read_embeddings

WITH_TISSUES = "with tissue by depth"
Facts = tuple[str, tuple[float, ...], float, tuple[float, ...]]
"""Checksum, histogram, volume in mL and shares by tone and depth of a scan."""


@dataclass(frozen=True)
class Codes:
    """What one folder of ``encode embed`` holds for the chosen subjects."""

    name: str
    features: Float[Tensor, "item feature"]
    sha256: tuple[str, ...]
    histogram: tuple[tuple[float, ...], ...]
    volume_ml: tuple[float, ...]
    notes: tuple[str, ...] = ()
    tissues: tuple[tuple[float, ...], ...] = ()
    """Shares by brightness and depth; empty for folders written before there were any."""

    @property
    def with_tissues(self) -> list[tuple[str, Float[Tensor, "item feature"]]]:
        """The code and the scan's shares side by side, as one more line; none where there are no shares."""
        if not complete(self.tissues):
            return []
        shares = torch.tensor(self.tissues, dtype=torch.float64)
        return [(f"{self.name} {WITH_TISSUES}", torch.cat([self.features.double(), shares], dim=1))]


def read_codes(path: Path, subjects: Sequence[Subject]) -> tuple[dict[int, int], Codes]:
    """Codes of a folder, and which row each subject has (those without one are left out).

    The histogram and volume of each brain lie in the folder's ``items``; for a table alone scans are read again.

    Raises
    ------
    InputError
        If there is no table of embeddings.
    """
    inputs, statuses, values = read_embeddings(path)
    base = path if path.is_dir() else path.parent
    by_path = {Path(name).resolve(): row for row, name in enumerate(inputs) if statuses[row] != "failed"}
    names = [Path(name).name for name in inputs]
    by_name = {Path(inputs[row]).name: row for row in by_path.values() if names.count(Path(inputs[row]).name) == 1}
    places: dict[int, int] = {}
    for index, subject in enumerate(subjects):
        if subject.path is not None:
            row = by_path.get(subject.path.resolve(), by_name.get(subject.path.name))
            if row is not None:
                places[index] = row
    markers = _markers(base)
    nothing: Facts = ("", (), 0.0, ())
    facts = [nothing] * len(inputs)
    for index, row in places.items():
        found = markers.get(inputs[row])
        if found is None:
            scan = subjects[index].path
            assert scan is not None
            source = open_brain(scan, mask=subjects[index].mask)
            shares = tuple(source.tissue_depths().tolist())
            found = (file_sha256(scan), tuple(source.histogram.tolist()), source.volume_ml, shares)
        facts[row] = found
    name = _encoder_name(base)
    sha, histograms, volumes, tissues = zip(*facts, strict=True)
    return places, Codes(name, _finite(values), sha, histograms, volumes, _declared(base, name), tissues)


def complete(tissues: Sequence[Sequence[float]]) -> bool:
    """Whether there are shares of every scan."""
    return bool(tissues) and all(len(row) == len(tissues[0]) > 0 for row in tissues)


def _finite(values: Array) -> Tensor:
    return torch.from_numpy(values).double()


def _markers(base: Path) -> dict[str, Facts]:
    """Checksum, histogram, volume and shares of every input from its marker."""
    found: dict[str, Facts] = {}
    for path in sorted((base / ITEMS).glob("*.json")):
        try:
            one = json.loads(path.read_text(encoding="utf-8"))
            shares = tuple(one.get("tissues", ()))
            found[str(one["input"])] = (
                str(one["input_sha256"]), tuple(one["histogram"]), float(one["volume_ml"]), shares
            )  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def _encoder_name(base: Path) -> str:
    """What a set of codes is called: its model, and its folder, which tells two of them apart."""
    try:
        record = json.loads((base / "run.json").read_text(encoding="utf-8"))
        return f"{record['model']['name']} ({base.name})"
    except (OSError, ValueError, KeyError, TypeError):
        return base.name


def _declared(base: Path, name: str) -> tuple[str, ...]:
    """What the model's folder says of the scans that it was trained on: tested on them, it is flattered."""
    try:
        record = json.loads((base / "run.json").read_text(encoding="utf-8"))
        config = json.loads((Path(record["model"]["path"]) / "config.json").read_text(encoding="utf-8"))
        seen = config["provenance"]["data"]
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    told = seen if isinstance(seen, str) else ", ".join(f"{part}: {what}" for part, what in dict(seen).items())
    return (f"{name} was trained on {told}. Scans among these, even seen without labels, flatter it.",)


def chosen_codes(places: dict[int, int], codes: Codes, indices: Sequence[int]) -> Codes:
    """The rows of some subjects, in their order."""
    rows = [places[index] for index in indices]
    return Codes(
        codes.name,
        codes.features[rows],
        tuple(codes.sha256[row] for row in rows),
        tuple(codes.histogram[row] for row in rows),
        tuple(codes.volume_ml[row] for row in rows),
        codes.notes,
        tuple(codes.tissues[row] for row in rows) if codes.tissues else (),
    )
