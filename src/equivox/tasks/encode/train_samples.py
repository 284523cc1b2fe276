"""Scans as training draws them: addressed by epoch and position, every view by its own generator."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import InputError
from equivox.formats.subjects import Subject
from equivox.geometry.rotations import random_rotations
from equivox.run.sampling import Sample
from equivox.run.seeds import generator_for
from equivox.tasks.encode.erasing import draw_holes
from equivox.tasks.encode.photometric import DegradationRange
from equivox.tasks.encode.views import ScanViews


@dataclass(frozen=True, slots=True)
class ScanSet:
    """Scans of one part of the data, in order."""

    subjects: tuple[Subject, ...]

    def __post_init__(self) -> None:
        for subject in self.subjects:
            if subject.path is None:
                raise InputError(f"{subject.name} has no scan; leave the row out, or say where it is with --images.")

    def __len__(self) -> int:
        return len(self.subjects)

    def digest(self) -> str:
        """Changes when other scans, or other labels, take part."""
        text = "\n".join(f"{s.id} {s.session} {s.path} {s.age} {s.sex} {s.diagnosis}" for s in self.subjects)
        return f"{len(self.subjects)} scans, {hashlib.sha256(text.encode()).hexdigest()[:16]}"


KEPT_BYTES = 1 << 30
"""Scans that a process keeps open: about a hundred brains at 2 mm; the one that waited longest is closed first."""


class ScanStore:
    """Opens scans when they are first asked for and keeps them, ready to be sampled: a brain at 2 mm takes 10 MB.

    Parameters
    ----------
    scans
        Which.
    voxel_size_mm
        Of the working grid.
    brain_extracted
        The user's word.
    kept_bytes
        Memory for scans that are kept open; the last one always is.
    """

    def __init__(
        self, scans: ScanSet, voxel_size_mm: float, *, brain_extracted: bool = False, kept_bytes: int = KEPT_BYTES
    ) -> None:
        self.scans, self.voxel_size_mm, self.brain_extracted = scans, voxel_size_mm, brain_extracted
        self.kept_bytes = kept_bytes
        self._opened: dict[int, ScanViews] = {}

    def __getitem__(self, index: int) -> ScanViews:
        if index in self._opened:
            self._opened[index] = self._opened.pop(index)  # the last one to be closed
        else:
            subject = self.scans.subjects[index]
            assert subject.path is not None
            self._opened[index] = ScanViews.open(
                subject.path, mask=subject.mask, brain_extracted=self.brain_extracted, voxel_size_mm=self.voxel_size_mm
            )
            while len(self._opened) > 1 and sum(one.nbytes for one in self._opened.values()) > self.kept_bytes:
                del self._opened[next(iter(self._opened))]
        return self._opened[index]


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What every sample holds."""

    side: int
    ranges: DegradationRange
    """Of degradations."""
    paired: bool = False
    """A second view, ``volume_b`` ..."""
    turn_first: bool = True
    """The first view is turned and degraded too."""
    degrade_first: bool = True
    """The first view is degraded."""
    holes: bool = False
    """``holes`` for masked reconstruction."""
    sessions: bool = False
    """The second view may be of another session."""


class BrainSamples:
    """Views of scans (:class:`equivox.run.sampling.Samples`).

    A sample has ``volume``, ``mask`` and ``turn``; if paired also ``volume_b``, ``mask_b``, ``turn_b`` and
    ``same_scan`` (1 where both views are of one scan, so that their directions can be compared); ``holes`` and the
    targets on request.

    Parameters
    ----------
    store
        Scans.
    drawing
        What a sample holds.
    training
        Shuffled, and other views in every epoch; validation is the same in every epoch.
    seed
        Of order and views.
    targets
        Further tensors of every scan, by name.
    """

    def __init__(
        self,
        store: ScanStore,
        drawing: Drawing,
        *,
        training: bool,
        seed: int,
        targets: Sequence[Mapping[str, Tensor]] | None = None,
    ) -> None:
        self.store, self.drawing, self.training, self.seed, self.targets = store, drawing, training, seed, targets
        self._sessions: dict[str, list[int]] = {}
        for index, subject in enumerate(store.scans.subjects):
            self._sessions.setdefault(subject.id, []).append(index)

    def __len__(self) -> int:
        return len(self.store.scans)

    def sample(self, epoch: int, position: int) -> Sample:
        """One scan of an epoch."""
        index = position
        if self.training:
            order = torch.randperm(len(self), generator=generator_for(self.seed, "order", epoch))
            index = int(order[position])
        purpose = "view" if self.training else "validation view"
        draw = generator_for(self.seed, purpose, epoch, index)
        wanted = self.drawing
        found: dict[str, Any] = self._view(
            index, draw, turned=wanted.turn_first, degraded=wanted.degrade_first, ending=""
        )
        if wanted.paired:
            other = self._partner(index, draw) if wanted.sessions else index
            found |= self._view(other, draw, turned=True, degraded=True, ending="_b")
            found["same_scan"] = torch.tensor(float(other == index))
        if wanted.holes:
            found["holes"] = draw_holes(found["mask"], self.store.voxel_size_mm, generator=draw)
        if self.targets is not None:
            found |= self.targets[index]
        return found

    def _partner(self, index: int, draw: torch.Generator) -> int:
        """Another session of the same person, or the scan itself."""
        others = [place for place in self._sessions[self.store.scans.subjects[index].id] if place != index]
        return others[int(torch.randint(len(others), (), generator=draw))] if others else index

    def _view(
        self, index: int, draw: torch.Generator, *, turned: bool, degraded: bool, ending: str
    ) -> dict[str, Float[Tensor, "..."]]:
        turn = random_rotations(1, generator=draw)[0] if turned else None
        degradation = self.drawing.ranges.draw(generator=draw) if degraded else None
        brain = self.store[index].view(side=self.drawing.side, turn=turn, degradation=degradation, generator=draw)
        matrix = torch.eye(3) if turn is None else turn.float()
        return {f"volume{ending}": brain.volume, f"mask{ending}": brain.mask, f"turn{ending}": matrix}
