"""Shape retrieval by the measures of SHREC17 (ShapeNet Core55), as the organisers' evaluation program defines them.

A query's answer is a list of models, best first, the query itself among them. Quirks of the official program that are
kept, because published numbers have them: the cut-off comes before any filtering; where a class has more members than
the cut-off, the ideal list takes the first of them in the order of the truth file; queries without a list do not count.
One is mended: a list that is empty after filtering counts 0 (there it is NaN and poisons every mean), with a warning.

References
----------
.. [1] Savva et al., "SHREC'17 Track: Large-Scale 3D Shape Retrieval from ShapeNet Core55", 3DOR 2017.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from equivox.errors import InputError

log = logging.getLogger(__name__)

CUTOFF = 1000
"""Lines of a rank list that count, and the largest number of relevant models."""
SAME_SUBCLASS, GENERIC, SAME_CLASS, WRONG = 3, 2, 1, 0
Label = tuple[str, str, str]
"""Class, sub-class and split of a model."""
Measure = Literal["P", "R", "F1", "AP", "NDCG"]
MEASURES: tuple[Measure, ...] = ("P", "R", "F1", "AP", "NDCG")


@dataclass(frozen=True, slots=True)
class Measures:
    """Precision, recall and F1 at the list's length, average precision, normalised discounted cumulative gain."""

    P: float
    R: float
    F1: float
    AP: float
    NDCG: float

    def as_dict(self) -> dict[str, float]:
        """By name, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class QueryResult:
    """One query: its class, the gain of every model that its list kept, how many models are relevant, its measures."""

    synset: str
    gains: tuple[int, ...]
    relevant: int
    measures: Measures


@dataclass(frozen=True, slots=True)
class Retrieval:
    """All queries of one split; ``micro`` is the mean over queries, ``macro`` the mean over classes of their means.

    ``skipped`` names queries that are not in the truth or belong to another split; ``empty`` those whose list had
    nothing left; ``missing`` how many models of the split had no list.
    """

    queries: Mapping[str, QueryResult]
    per_synset: Mapping[str, Measures]
    micro: Measures
    macro: Measures
    skipped: tuple[str, ...]
    empty: tuple[str, ...]
    missing: int

    @property
    def score(self) -> float:
        """What SHREC17 ranked by: the sum of micro and macro mean average precision (the article's 1.11)."""
        return self.micro.AP + self.macro.AP


def list_measures(gains: Sequence[int], oracle: Sequence[int], *, cutoff: int = CUTOFF) -> Measures:
    """Measures of one list.

    Parameters
    ----------
    gains
        Gain of every model of the list: 3 same sub-class, 2 the generic class, 1 same class, 0 wrong.
    oracle
        Gains of all relevant models, in the order of the truth file.
    cutoff
        Largest number of relevant models that counts.

    Examples
    --------
    >>> list_measures([3, 0, 1], [3, 1, 1]).P
    0.6666666666666666
    """
    relevant = min(len(oracle), cutoff)
    if not gains or not relevant:
        return Measures(0.0, 0.0, 0.0, 0.0, 0.0)
    hits, found, precision_sum = [gain > 0 for gain in gains], 0, 0.0
    for rank, hit in enumerate(hits, start=1):
        found += hit
        precision_sum += found / rank if hit else 0.0
    precision, recall = found / len(gains), found / relevant
    harmonic = 2 * precision * recall / (precision + recall) if found else 0.0
    ideal = _discounted(sorted(oracle[:relevant], reverse=True))
    gained = _discounted(gains[: min(len(gains), relevant)])
    return Measures(precision, recall, harmonic, precision_sum / relevant, gained / ideal if ideal else 0.0)


def gain(query: Label, retrieved: Label) -> int:
    """What one retrieved model is worth to a query of the same split."""
    if query[0] != retrieved[0]:
        return WRONG
    if query[1] == retrieved[1]:
        return SAME_SUBCLASS
    return GENERIC if retrieved[1] == query[0] else SAME_CLASS


def evaluate_retrieval(
    truth: Mapping[str, Label], lists: Mapping[str, Sequence[str]], *, split: str, cutoff: int = CUTOFF
) -> Retrieval:
    """Measure the rank lists of one split.

    Parameters
    ----------
    truth
        Class, sub-class and split by model, in the order of the truth file.
    lists
        For every query the models of its list, best first; only the first ``cutoff`` count.
    split
        The split whose models are queries and answers.

    Raises
    ------
    InputError
        If no query of the split has a list.
    """
    members: dict[str, list[Label]] = defaultdict(list)
    for known in truth.values():
        if known[2] == split:
            members[known[0]].append(known)
    results: dict[str, QueryResult] = {}
    skipped, empty = [], []
    for query, answers in lists.items():
        label = truth.get(query)
        if label is None or label[2] != split:
            skipped.append(query)
            continue
        kept = [truth[model] for model in dict.fromkeys(answers[:cutoff]) if model in truth]
        gains = [gain(label, model) for model in kept if model[2] == split]
        if not gains:
            empty.append(query)
        oracle = [gain(label, model) for model in members[label[0]]]
        measures = list_measures(gains, oracle, cutoff=cutoff)
        results[query] = QueryResult(label[0], tuple(gains), min(len(oracle), cutoff), measures)
    if not results:
        raise InputError(f"None of the {len(lists)} rank lists belongs to a model of the split {split!r}.")
    if empty:
        log.warning("%d rank lists name no model of the split %s and count as 0: %s", len(empty), split, empty[0])
    if skipped:
        log.warning("%d rank lists belong to no model of the split %s: %s", len(skipped), split, skipped[0])
    by_synset: dict[str, list[Measures]] = defaultdict(list)
    for result in results.values():
        by_synset[result.synset].append(result.measures)
    per_synset = {synset: _mean(by_synset[synset]) for synset in sorted(by_synset)}
    return Retrieval(
        queries=results,
        per_synset=per_synset,
        micro=_mean([result.measures for result in results.values()]),
        macro=_mean(list(per_synset.values())),
        skipped=tuple(skipped),
        empty=tuple(empty),
        missing=sum(len(group) for group in members.values()) - len(results),
    )


def rank_lists(ids: Sequence[str], logits: Float[Tensor, "item class"]) -> dict[str, list[str]]:
    """Rank lists of a classifier: every model of the query's predicted class, by its logit of that class.

    The highest logit comes first, ties by the highest id; the query itself is in its list. Where several rotated
    copies of a model were classified, give the sum of their logits.

    Examples
    --------
    >>> rank_lists(["01", "02", "03"], torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]]))["01"]
    ['03', '01']
    """
    if len(ids) != len(logits) or len(set(ids)) != len(ids):
        raise InputError(f"{len(logits)} predictions need as many distinct ids; {len(set(ids))} were given.")
    predicted: Int[Tensor, " item"] = logits.argmax(dim=1)
    of_class: dict[int, list[str]] = {}
    for index in predicted.unique().tolist():
        rows = torch.nonzero(predicted == index)[:, 0].tolist()
        scores = {row: float(logits[row, index]) for row in rows}
        of_class[index] = [ids[row] for row in sorted(rows, key=lambda row: (scores[row], ids[row]), reverse=True)]
    return {name: of_class[index] for name, index in zip(ids, predicted.tolist(), strict=True)}


def _discounted(gains: Sequence[int]) -> float:
    """Discounted cumulative gain: ranks 1 and 2 count whole, rank k by 1 / log2(k)."""
    return sum(value / (math.log2(rank) if rank > 1 else 1.0) for rank, value in enumerate(gains, start=1))


def _mean(measures: Sequence[Measures]) -> Measures:
    return Measures(*(math.fsum(getattr(one, name) for one in measures) / len(measures) for name in MEASURES))
