"""Which predicted row belongs to which true row: by file name, else by the id that begins the stem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from equivox.errors import InputError
from equivox.formats.poses import PoseRow, TruthRow


@dataclass(frozen=True, slots=True)
class Matched:
    """Pairs of one prediction and one truth, and sentences about what found no partner."""

    pairs: tuple[tuple[PoseRow, TruthRow], ...]
    unmatched: tuple[str, ...]


def match_rows(predicted: Sequence[PoseRow], truth: Sequence[TruthRow]) -> Matched:
    """Pair predictions with true poses.

    A prediction takes the true row whose ``file`` has the same name; failing that, the row with the longest ``id``
    that begins its stem and ends there or before a character that is neither letter nor digit (``fet-1`` is not the
    beginning of ``fet-10``). The frame must be the same. No true row is used twice.

    Raises
    ------
    InputError
        If nothing at all could be matched.
    """
    by_file = {(PurePath(row.file).name, row.frame): row for row in truth}
    pairs: list[tuple[PoseRow, TruthRow]] = []
    notes: list[str] = []
    taken: dict[int, str] = {}
    for row in predicted:
        found = by_file.get((PurePath(row.input).name, row.frame)) or _by_id(row, truth)
        shown = row.input if row.frame == 0 else f"{row.input}, frame {row.frame}"
        if found is None:
            notes.append(f"predicted {shown}: no such file or id in the truth table")
        elif id(found) in taken:
            notes.append(f"predicted {shown}: its truth {found.id} was already matched with {taken[id(found)]}")
        elif found.world_from_head is None:
            notes.append(f"predicted {shown}: the truth table has no pose for {found.id}")
        else:
            pairs.append((row, found))
        if found is not None:
            taken.setdefault(id(found), shown)
    notes += [f"truth {row.id}: not predicted" for row in truth if id(row) not in taken]
    if not pairs:
        first_predicted = predicted[0].input if predicted else "(no rows)"
        first_true = truth[0].id if truth else "(no rows)"
        raise InputError(
            f"none of {len(predicted)} predicted rows (the first is {first_predicted}) belongs to one of {len(truth)} "
            f"true rows (the first is {first_true}); file names or ids must agree."
        )
    return Matched(tuple(pairs), tuple(notes))


def _by_id(row: PoseRow, truth: Sequence[TruthRow]) -> TruthRow | None:
    fitting = [one for one in truth if one.frame == row.frame and _begins(one.id, row.stem)]
    return max(fitting, key=lambda one: len(one.id), default=None)


def _begins(identifier: str, stem: str) -> bool:
    rest = stem[len(identifier) :]
    return stem.startswith(identifier) and not rest[:1].isalnum()
