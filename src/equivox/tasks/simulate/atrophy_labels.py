"""Which numbers of a label map mean which structure: our ten classes, FreeSurfer's, or a table of the user's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from equivox.errors import InputError
from equivox.simulate.atrophy import NEEDED, STRUCTURES

TEN_CLASSES: Mapping[str, tuple[int, ...]] = {name: (number,) for number, name in enumerate(STRUCTURES, start=1)}
"""Sulcal CSF 1, ventricles 2, cortex 3, white matter 4, deep grey 5, hippocampus 6, amygdala 7, cerebellum 8 and 9,
brainstem 10."""
FREESURFER: Mapping[str, tuple[int, ...]] = {
    "csf_sulcal": (24,),
    "ventricles": (4, 5, 14, 15, 43, 44, 72),
    "cortical_gm": (3, 42, *range(1001, 1036), *range(2001, 2036)),
    "cerebral_wm": (2, 41, 77, 78, 79, *range(251, 256)),
    "deep_gm": (9, 10, 11, 12, 13, 26, 28, 48, 49, 50, 51, 52, 58, 60),
    "hippocampus": (17, 53),
    "amygdala": (18, 54),
    "cerebellum_gm": (8, 47),
    "cerebellum_wm": (7, 46),
    "brainstem": (16,),
}
"""Of aseg and aparc+aseg (also SynthSeg's)."""


def read_scheme(scheme: str) -> Mapping[str, tuple[int, ...]]:
    """Label numbers by structure: ``ten``, ``freesurfer``, or a JSON file.

    The file maps structures to numbers (``{"ventricles": [4, 43], ...}``) or numbers to structures
    (``{"2": "ventricles", ...}``).

    Raises
    ------
    InputError
        If the file is missing or broken, or lacks a needed structure.
    """
    if scheme == "ten":
        return TEN_CLASSES
    if scheme == "freesurfer":
        return FREESURFER
    path = Path(scheme).expanduser()
    try:
        table: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{scheme} is neither ten, freesurfer nor a file that can be read ({error.strerror})."
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is no JSON ({error}); write structures and their numbers.") from error
    try:
        found: dict[str, tuple[int, ...]] = {}
        for key, value in table.items():
            if str(key).isdigit():
                found[str(value)] = (*found.get(str(value), ()), int(key))
            else:
                found[str(key)] = tuple(int(one) for one in (value if isinstance(value, list) else [value]))
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(f"{path} holds no table of structures and numbers ({error}).") from error
    missing = [name for name in NEEDED if name not in found]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}; structures are called {', '.join(STRUCTURES)}.")
    return {name: numbers for name, numbers in found.items() if name in STRUCTURES}
