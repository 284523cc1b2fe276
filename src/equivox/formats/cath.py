"""CATH domains as C-alpha traces: the published padded archives, and the rebuilt ragged set.

Labels: CATH, Orengo group, University College London, cathdb.info, CC BY 4.0. Positions are in ångström, centred at
the mean C-alpha of the domain. Splits share no superfamily: cut by ``split``, never at random.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from equivox.errors import InputError
from equivox.formats.archives import (
    Array,
    read_arrays,
    require_file,
    require_indices,
    require_length,
    require_offsets,
)

HUNDREDTHS = 0.01
"""Ångström per stored unit of the rebuilt set."""
LEVELS = {1: "class", 2: "architecture", 3: "topology"}
ORIGINAL = {"n_atoms": 1, "atom_types": 2, "positions": 3, "labels": 2, "split_start_indices": 1}
REBUILT = {"domain": 1, "cath": 2, "n_res": 1, "offset": 1, "ca": 2, "split": 1,
           "set_3class": 1, "set_10arch": 1, "arch10": 2}  # fmt: skip
FARTHEST_ANGSTROM = 1e4
"""No domain reaches this far; a coordinate beyond it is a mistake."""


@dataclass(frozen=True, slots=True)
class CathTask:
    """One classification task over some domains of a set: which rows, their class index, the names of the classes."""

    name: str
    classes: tuple[str, ...]
    domains: Int[Tensor, " member"]
    labels: Int[Tensor, " member"]


@dataclass(frozen=True, slots=True)
class CathSet:
    """Domains in ragged layout: domain i owns rows ``offsets[i]:offsets[i + 1]`` of ``positions`` [Å].

    ``split`` is 0 to 9; ``codes`` holds the leading CATH numbers (C, A, T, H as far as the file has them).
    """

    path: Path
    domains: tuple[str, ...]
    positions: Float[Tensor, "atom 3"]
    offsets: Int[Tensor, " bound"]
    codes: Int[Tensor, "domain level"]
    split: Int[Tensor, " domain"]
    tasks: Mapping[str, CathTask]

    def __len__(self) -> int:
        """How many domains."""
        return len(self.domains)

    def domain(self, index: int) -> Float[Tensor, "atom 3"]:
        """C-alpha positions of one domain [Å]."""
        return self.positions[int(self.offsets[index]) : int(self.offsets[index + 1])]

    def task(self, name: str | None = None) -> CathTask:
        """A task by name; without a name the only one.

        Raises
        ------
        InputError
            If there is no such task, or several and no name.
        """
        if name is None and len(self.tasks) == 1:
            return next(iter(self.tasks.values()))
        if name is None or name not in self.tasks:
            raise InputError(f"{self.path} has the tasks {', '.join(self.tasks)}; {name!r} is none of them.")
        return self.tasks[name]


def read_cath(path: Path | str) -> CathSet:
    """Read a CATH archive of either layout; the arrays in it decide which.

    The published layout (``cath_3class_ca.npz``, ``cath_10arch_ca.npz``, ``cath_20topo_ca.npz``) has one task, named
    by its level (``class``, ``architecture``, ``topology``); classes are sorted over the whole file. The rebuilt set
    has the tasks ``3class`` and ``10arch``.

    Raises
    ------
    InputError
        If the file is missing, broken, of neither layout, holds no domain, or its numbers contradict each other.
    """
    path = require_file(path)
    arrays = read_arrays(path, {}, what="a CATH set")
    if "ca" in arrays:
        return _rebuilt(path, read_arrays(path, REBUILT, what="a rebuilt CATH set"))
    return _original(path, read_arrays(path, ORIGINAL, what="a CATH set of the published layout"))


def _original(path: Path, arrays: Mapping[str, Array]) -> CathSet:
    counts, padded, labels = arrays["n_atoms"].astype(np.int64), arrays["positions"], arrays["labels"]
    starts = arrays["split_start_indices"].astype(np.int64)
    count = len(counts)
    _require_domains(path, count)
    lengths = {"positions": len(padded), "labels": len(labels), "atom_types": len(arrays["atom_types"])}
    require_length(path, lengths, count=count, of="domains")
    if padded.shape[2] != 3 or counts.min() < 1 or counts.max() > padded.shape[1]:
        raise InputError(
            f"{path}: n_atoms runs from {counts.min()} to {counts.max()} for positions of shape {padded.shape}; "
            f"the file is damaged."
        )
    if labels.shape[1] not in LEVELS:
        raise InputError(f"{path}, array labels, has {labels.shape[1]} columns; 1 to 3 CATH levels are needed.")
    if len(starts) < 1 or starts[0] != 0 or (np.diff(starts) < 0).any() or starts[-1] >= count:
        raise InputError(f"{path}: split_start_indices {starts.tolist()} do not divide {count} domains.")
    present = np.arange(padded.shape[1]) < counts[:, None]  # the padding is zeros and empty names: never look at it
    names = {str(name, "ascii", "replace") for name in np.unique(arrays["atom_types"][present])}
    if names != {"CA"}:
        raise InputError(f"{path} holds atoms named {', '.join(sorted(names))}; the C-alpha files (CA) are read here.")
    positions = padded[present]
    split = np.searchsorted(starts, np.arange(count), side="right") - 1
    codes = labels.astype(np.int64)
    tuples, index = np.unique(codes, axis=0, return_inverse=True)
    name = LEVELS[labels.shape[1]]
    task = CathTask(
        name, _class_names(tuples), torch.arange(count), torch.from_numpy(index.reshape(-1).astype(np.int64))
    )
    return _assemble(
        path,
        tuple(f"{path.stem}_{i:04d}" for i in range(count)),
        positions.astype(np.float64),
        np.concatenate([[0], np.cumsum(counts)]),
        codes,
        split,
        {name: task},
    )


def _rebuilt(path: Path, arrays: Mapping[str, Array]) -> CathSet:
    count = len(arrays["domain"])
    _require_domains(path, count)
    lengths = {name: len(arrays[name]) for name in ("cath", "n_res", "split", "set_3class", "set_10arch")}
    require_length(path, lengths, count=count, of="domains")
    require_offsets(path, "offset", arrays["offset"], count=count, total=len(arrays["ca"]), of="ca")
    if arrays["ca"].shape[1] != 3 or arrays["cath"].shape[1] != 4:
        raise InputError(f"{path}: ca {arrays['ca'].shape} or cath {arrays['cath'].shape} has the wrong width.")
    codes = arrays["cath"].astype(np.int64)
    order = {tuple(pair): index for index, pair in enumerate(arrays["arch10"].tolist())}
    of_ten = np.flatnonzero(arrays["set_10arch"])
    unknown = [tuple(pair) for pair in codes[of_ten, :2].tolist() if tuple(pair) not in order]
    if unknown:
        raise InputError(f"{path}: a domain of the 10-architecture task has architecture {unknown[0]}, not in arch10.")
    of_three = np.flatnonzero(arrays["set_3class"])
    three, three_index = np.unique(codes[of_three, :1], axis=0, return_inverse=True)
    tasks = {
        "3class": CathTask(
            "3class", _class_names(three), torch.from_numpy(of_three), torch.from_numpy(three_index.reshape(-1))
        ),
        "10arch": CathTask(
            "10arch",
            _class_names(arrays["arch10"]),
            torch.from_numpy(of_ten),
            torch.tensor([order[tuple(pair)] for pair in codes[of_ten, :2].tolist()], dtype=torch.int64),
        ),
    }
    names = tuple(str(name, "ascii", "replace") for name in arrays["domain"].tolist())
    positions = arrays["ca"].astype(np.float64) * HUNDREDTHS
    return _assemble(path, names, positions, arrays["offset"].astype(np.int64), codes, arrays["split"], tasks)


def _assemble(
    path: Path, names: tuple[str, ...], positions: Array, offsets: Array, codes: Array, split: Array,
    tasks: Mapping[str, CathTask],
) -> CathSet:  # fmt: skip
    if float(np.abs(positions).max()) > FARTHEST_ANGSTROM:
        row = int(np.abs(positions).max(axis=1).argmax())
        name = names[int(np.searchsorted(offsets, row, side="right")) - 1]
        raise InputError(f"{path}, domain {name}, has a coordinate beyond {FARTHEST_ANGSTROM:g} Å; remove that domain.")
    require_indices(path, "split", split, below=10, of="the list of splits")
    return CathSet(
        path,
        names,
        torch.from_numpy(positions).float(),
        torch.from_numpy(offsets.astype(np.int64)),
        torch.from_numpy(codes),
        torch.from_numpy(split.astype(np.int64)),
        tasks,
    )


def _require_domains(path: Path, count: int) -> None:
    if count == 0:
        raise InputError(f"{path} holds no domain; copy it again from its source.")


def _class_names(codes: Array) -> tuple[str, ...]:
    """``(3, 40)`` as ``"3.40"``."""
    return tuple(".".join(str(number) for number in code) for code in codes.tolist())
