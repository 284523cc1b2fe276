"""Which micrograph a name in a coordinate file means.

Programs write names with and without folders and endings, with suffixes of processing (``_DW``) and, from cryoSPARC,
with a prefix of 21 digits. A name is tried as a path, then as the end of a path, then by its stem, then by its bare
stem; where two micrographs fit equally it fits none, and says so.
"""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

ENDINGS = (".gz", ".bz2", ".mrcs", ".mrc", ".tiff", ".tif", ".eer", ".png", ".ali", ".star", ".box", ".cbox", ".txt")
SUFFIXES = (
    "_patch_aligned_doseweighted", "_patch_aligned", "_aligned_mic", "_rigid_aligned", "_doseweighted", "_fractions",
    "_noDW", "_DW", "_autopick", "_manualpick", "_topaz",
)  # fmt: skip
UID_PREFIX = re.compile(r"^\d{18,21}_")


@dataclass(frozen=True, slots=True)
class Matching:
    """Result of :func:`match_names`.

    ``found`` gives for each name the index of its micrograph, or -1; ``reasons`` says for each unmatched name why.
    """

    found: tuple[int, ...]
    reasons: dict[str, str]


def micrograph_stem(name: str) -> str:
    """Name of a file without folders and known endings.

    >>> micrograph_stem("MotionCorr/job002/mics/a_0001.mrc.gz")
    'a_0001'
    """
    stem = PurePosixPath(name.replace("\\", "/")).name
    while True:
        ending = next((text for text in ENDINGS if stem.lower().endswith(text) and len(stem) > len(text)), None)
        if ending is None:
            return stem
        stem = stem[: -len(ending)]


def bare_stem(name: str) -> str:
    """The stem without what programs add to it: suffixes of processing and cryoSPARC's number in front.

    >>> bare_stem("014478218923018490218_mic_7_patch_aligned_doseweighted.mrc")
    'mic_7'
    """
    stem = UID_PREFIX.sub("", micrograph_stem(name))
    while True:
        suffix = next((text for text in SUFFIXES if stem.endswith(text) and len(stem) > len(text)), None)
        if suffix is None:
            return stem
        stem = stem[: -len(suffix)]


def match_names(names: Sequence[str], micrographs: Sequence[str]) -> Matching:
    """Find the micrograph of every name.

    Parameters
    ----------
    names
        As they stand in coordinate files (repetitions are fine).
    micrographs
        Paths of the micrographs.

    Examples
    --------
    >>> matching = match_names(["mic_1", "a/mic_2.mrc", "mic_9"], ["raw/mic_1_DW.mrc", "raw/mic_2.mrc"])
    >>> matching.found, matching.reasons
    ((0, 1, -1), {'mic_9': 'no micrograph has this name; the nearest is mic_2'})
    """
    tables = [_index(micrographs, key) for key in (_path, micrograph_stem, bare_stem)]
    known: dict[str, int] = {}
    reasons: dict[str, str] = {}
    for name in dict.fromkeys(names):
        found = _find(name, micrographs, tables)
        if isinstance(found, int):
            known[name] = found
        else:
            reasons[name] = found
    return Matching(tuple(known.get(name, -1) for name in names), reasons)


def _index(micrographs: Sequence[str], key: Callable[[str], str]) -> dict[str, list[int]]:
    table: dict[str, list[int]] = defaultdict(list)
    for index, path in enumerate(micrographs):
        table[key(path)].append(index)
    return table


def _path(name: str) -> str:
    return str(PurePosixPath(name.replace("\\", "/")))


def _find(name: str, micrographs: Sequence[str], tables: list[dict[str, list[int]]]) -> int | str:
    """The micrograph's index, or why there is none."""
    if not name.strip():
        return "the name is empty"
    by_path, by_stem, by_bare = tables
    exact = by_path.get(_path(name), [])
    if len(exact) == 1:
        return exact[0]
    for candidates in (by_stem.get(micrograph_stem(name), []), by_bare.get(bare_stem(name), [])):
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            nearer = _with_common_folders(name, candidates, micrographs)
            if nearer is not None:
                return nearer
            shown = ", ".join(micrographs[index] for index in candidates[:3])
            return f"{len(candidates)} micrographs fit it ({shown}); name the folder too"
    stems = [micrograph_stem(path) for path in micrographs]
    near = difflib.get_close_matches(micrograph_stem(name), stems, n=1)
    return "no micrograph has this name" + (f"; the nearest is {near[0]}" if near else "")


def _with_common_folders(name: str, candidates: Sequence[int], micrographs: Sequence[str]) -> int | None:
    """The one candidate that shares most of the folders at the end of the path, if it is one."""
    wanted = PurePosixPath(_path(name)).parts[:-1][::-1]
    shared = []
    for index in candidates:
        folders = PurePosixPath(_path(micrographs[index])).parts[:-1][::-1]
        count = 0
        while count < min(len(wanted), len(folders)) and wanted[count] == folders[count]:
            count += 1
        shared.append(count)
    best = max(shared)
    return candidates[shared.index(best)] if shared.count(best) == 1 else None
