"""Folds for cross-validation that keep groups together and are alike in their targets, and checks against leakage.

A person's scans, or a family's, lie in one fold. Folds depend on the seed and on nothing else.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from equivox.errors import ConfigError, InputError
from equivox.metrics.grouped import group_means, positions_in_groups


def grouped_folds(
    groups: Sequence[Hashable],
    targets: Float[Tensor, " item"],
    *,
    count: int,
    generator: torch.Generator,
    classes: bool = False,
) -> Int[Tensor, " item"]:
    """A fold (0 to ``count`` - 1) for every item; whole groups, stratified.

    Groups are sorted by their mean target (ties in random order) and dealt in blocks of ``count``, each block shuffled:
    every fold gets low, middle and high targets. With ``classes`` groups are sorted by their commonest class, and each
    class is dealt on where the one before ended.

    Raises
    ------
    ConfigError
        If there are fewer than two folds.
    InputError
        If there are fewer groups than folds.
    """
    if count < 2:
        raise ConfigError(f"there are {count} folds; cross-validation needs 2 or more.")
    names, position = positions_in_groups(groups)
    if len(names) < count:
        raise InputError(f"there are {len(names)} people (groups) and {count} folds; use fewer folds.")
    means = _commonest(targets, position, len(names)) if classes else group_means(targets.double(), groups)
    shuffle = torch.randperm(len(names), generator=generator)
    order = shuffle[torch.argsort(means[shuffle], stable=True)]
    fold = torch.empty(len(names), dtype=torch.int64)
    for start in range(0, len(names), count):
        block = order[start : start + count]
        fold[block] = torch.randperm(count, generator=generator)[: len(block)]
    return fold[position]


def _commonest(targets: Tensor, position: Tensor, count: int) -> Tensor:
    """For every group the class that most of its items have."""
    found = torch.zeros(count, dtype=torch.float64)
    for group in range(count):
        values, times = targets[position == group].unique(return_counts=True)
        found[group] = float(values[times.argmax()])
    return found


def require_no_leakage(folds: Int[Tensor, " item"], groups: Sequence[Hashable], *, what: str) -> None:
    """Stop if a group lies in more than one fold: it would be learned by heart.

    Raises
    ------
    InputError
        That names the first such group.
    """
    seen: dict[Hashable, int] = {}
    for fold, group in zip(folds.tolist(), groups, strict=True):
        if seen.setdefault(group, fold) != fold:
            raise InputError(
                f"{what} leaks: {group} lies in fold {seen[group]} and in fold {fold}, so it would be trained on and "
                f"tested on; give all scans of one person (or family) the same fold."
            )


def require_distinct(fingerprints: Sequence[Hashable], groups: Sequence[Hashable], names: Sequence[str]) -> None:
    """Stop if one scan stands under two people: the same image in training and in test.

    Raises
    ------
    InputError
        That names both.
    """
    owner: dict[Hashable, int] = {}
    for index, fingerprint in enumerate(fingerprints):
        first = owner.setdefault(fingerprint, index)
        if groups[first] != groups[index]:
            raise InputError(
                f"{names[first]} and {names[index]} are the same image under two people; remove one of them, or the "
                f"folds leak."
            )


def require_classes(folds: Int[Tensor, " item"], labels: Int[Tensor, " item"], names: Sequence[str]) -> None:
    """Stop if a fold, or what is left to train on, holds one class alone.

    Raises
    ------
    InputError
        That names the fold and its class.
    """
    for fold in folds.unique().tolist():
        for part, which in ((labels[folds == fold], "holds"), (labels[folds != fold], "leaves to train on")):
            found = part.unique().tolist()
            if len(found) < 2:
                only = names[found[0]] if found else "nothing"
                raise InputError(
                    f"fold {fold} {which} one class alone ({only}); use fewer folds, or more scans of the rarer class."
                )
