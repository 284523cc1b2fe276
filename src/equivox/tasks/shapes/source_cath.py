"""Domains of proteins as C-alpha traces, and the boxes about residues: data in ten splits (data_shapes.md A, B)."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import InputError
from equivox.formats.cath import CathSet, read_cath
from equivox.geometry.chain import chain_points
from equivox.tasks.shapes.config import DataConfig, InputConfig
from equivox.tasks.shapes.data import Content, Points, Shape

PUBLISHED_PARTS = {7: "validation", 8: "test", 9: "test"}
"""Split -> part; all others are for training."""
LEVEL_TASKS = {"3class": "class", "10arch": "architecture", "20topo": "topology"}
"""Our names of the tasks -> those of files in the published layout."""


def part_of_split(split: int, fold: int | None) -> str:
    """Which part a split plays: as published, or with ``fold`` in the test and the next split in validation."""
    if fold is None:
        return PUBLISHED_PARTS.get(split, "train")
    if split == fold:
        return "test"
    return "validation" if split == (fold + 1) % 10 else "train"


class CathSource:
    """Domains of a CATH archive as points in the channels that the input asks for, centred at their mean.

    Parameters
    ----------
    path
        An archive of the published or of the rebuilt layout.
    config
        What a trace becomes.
    data
        Task and fold.

    Raises
    ------
    InputError
        If the file cannot be used or has no such task.
    """

    def __init__(self, path: Path, config: InputConfig, data: DataConfig) -> None:
        self._config = config
        self._set: CathSet = read_cath(path)
        task = self._set.task(_task_name(self._set, data.task))
        self.name = f"{path.name}, {task.name}"
        self.classes = task.classes
        self._rows = task.domains.tolist()
        splits = self._set.split.tolist()
        self.shapes = tuple(
            Shape(id=self._set.domains[row], label=label, split=part_of_split(splits[row], data.fold))
            for row, label in zip(self._rows, task.labels.tolist(), strict=True)
        )
        lengths = self._set.offsets.diff()
        self.capacity = int(lengths[task.domains].max()) * (2 if config.trace == "chain" else 1)
        self._kept: dict[int, Content] = {}

    def content(self, index: int) -> Content:
        """C-alpha positions [Å]."""
        if index not in self._kept:
            self._kept[index] = trace_content(self._set.domain(self._rows[index]), self._config)
        return self._kept[index]


def trace_content(positions: Float[Tensor, "residue 3"], config: InputConfig) -> Points:
    """A C-alpha trace [Å] as points about its mean: all alike, or in five kinds by what the chain does."""
    centred = positions - positions.mean(dim=0)
    if config.trace == "chain":
        marked, kind = chain_points(centred)
        return Points(marked, kind)
    return Points(centred, torch.zeros(len(centred), dtype=torch.int64))


def _task_name(found: CathSet, wanted: str) -> str | None:
    """The file's name of a task; the larger one of the rebuilt set if none is asked for."""
    if wanted == "":
        return None if len(found.tasks) == 1 else "10arch"
    if wanted in found.tasks:
        return wanted
    if LEVEL_TASKS.get(wanted) in found.tasks:
        return LEVEL_TASKS[wanted]
    raise InputError(f"{found.path} has no task {wanted!r}; it has {', '.join(found.tasks)}.")
