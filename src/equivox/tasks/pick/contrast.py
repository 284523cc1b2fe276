"""Whether particles are dark or bright: evidence of several micrographs, each weighed by how much it says.

A picker that knows dark particles is asked twice, for an image and for its negative. On ice without particles both
answers are alike, so such a micrograph must not dilute what another one shows; a single strange micrograph (carbon, ice
crystals) must not outvote the rest. Each micrograph therefore gives a signed number of standard deviations, which is
squared: about nothing for noise, much for a clear one, and no more than a fixed most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from equivox.errors import InputError
from equivox.formats.micrographs import MicrographInput

if TYPE_CHECKING:
    from equivox.tasks.pick.picker import PickModel, PickOptions
    from equivox.tasks.pick.prepare import Prepared

Polarity = Literal["dark", "bright"]
Evidence = tuple[float, float]
"""About how many particles a micrograph seems to hold if they are dark, and if they are bright."""
FEW, MANY = 3, 8
"""Micrographs that are looked at first, and those when the first ones leave it open."""
SYSTEMATIC = 0.1
"""Share of all false finds by which the two answers differ without any particle (halos, dirt)."""
LARGEST_SIGNAL = 5.0
"""No micrograph says more than this, in standard deviations."""
CLEAR = 4.0
"""The sum over micrographs counts when it is so many times the square root of the number of those that say anything:
about twice what chance gives."""
LEAD = 1.0 / 3.0
"""And when the sum is so much of what it would be if all agreed: two to one."""


def contrast_signal(evidence: Evidence) -> float:
    """Standard deviations by which dark leads (positive) or bright (negative); near 0 for an image of noise.

    Examples
    --------
    >>> round(contrast_signal((60.0, 20.0)), 1), round(contrast_signal((3.0, 2.5)), 1)
    (3.3, 0.2)
    """
    dark, bright = evidence
    spread = math.sqrt(dark + bright + 1.0 + (SYSTEMATIC * (dark + bright)) ** 2)
    return max(-LARGEST_SIGNAL, min(LARGEST_SIGNAL, (dark - bright) / spread))


def pooled_contrast(evidence: Sequence[Evidence]) -> Polarity | None:
    """What several micrographs say together; None where that is nothing clear."""
    signals = [contrast_signal(one) for one in evidence]
    signed = sum(math.copysign(one * one, one) for one in signals)
    total = sum(one * one for one in signals)
    speaking = max(1.0, sum(min(1.0, one * one) for one in signals))
    if abs(signed) < CLEAR * math.sqrt(speaking) or abs(signed) < LEAD * total:
        return None
    return "dark" if signed > 0.0 else "bright"


def decide_contrast(evidence: Sequence[Evidence], *, fallback: Polarity = "dark") -> tuple[Polarity, str]:
    """Dark or bright, and a sentence where the evidence does not say it.

    Parameters
    ----------
    evidence
        Of each micrograph that was looked at.
    fallback
        What is taken when nothing is clear: the contrast of the micrographs that the model was trained on.
    """
    found = pooled_contrast(evidence)
    if found is not None:
        return found, ""
    dark, bright = (sum(one[side] for one in evidence) for side in (0, 1))
    return fallback, (
        f"Whether particles are dark or bright is not clear (evidence {dark:.1f} to {bright:.1f} on {len(evidence)} "
        f"micrograph{'' if len(evidence) == 1 else 's'}); they are taken as {fallback}, as those that the model was "
        f"trained on: look at the picks, or give --contrast."
    )


def settle_contrast(
    model: PickModel, options: PickOptions, entries: Sequence[MicrographInput]
) -> tuple[PickOptions, list[str]]:
    """Options with the contrast decided for all micrographs together, if there are several and it was left open.

    Three micrographs are looked at in their middle, five more if that leaves it open, then all eight as a whole.
    Micrographs that cannot be read are left out here: they are reported when their turn comes.

    Returns
    -------
    The options, and sentences: that nothing was clear, or which micrographs say the opposite.
    """
    usable = [entry for entry in entries if not entry.problem]
    if options.contrast != "auto" or len(usable) < 2:
        return options, []
    order = _spread(len(usable))
    seen: list[tuple[str, Prepared]] = []
    evidence: list[Evidence] = []
    for count in (FEW, MANY):
        for index in order[len(evidence) : count]:
            try:
                prepared = model.prepare(usable[index].path, options)
            except (InputError, OSError):
                order.remove(index)
                continue
            seen.append((usable[index].name, prepared))
            evidence.append(model.contrast_evidence(prepared))
        if pooled_contrast(evidence) is not None:
            break
    else:
        evidence = [model.contrast_evidence(prepared, whole=True) for _, prepared in seen]
    if not seen:
        return options, []
    contrast, note = decide_contrast(evidence, fallback=model.trained_contrast)
    return replace(options, contrast=contrast), [note] if note else _opposite(seen, evidence, contrast)


def _spread(count: int) -> list[int]:
    """Micrographs over the whole run: first, last and middle one, then those between."""
    first = np.linspace(0, count - 1, min(FEW, count)).round().astype(int).tolist()
    further = np.linspace(0, count - 1, min(MANY, count)).round().astype(int).tolist()
    return list(dict.fromkeys([*first, *further]))[:MANY]


def _opposite(seen: Sequence[tuple[str, Prepared]], evidence: Sequence[Evidence], contrast: str) -> list[str]:
    """A sentence where a micrograph clearly says the opposite of what was decided."""
    odd = [
        name
        for (name, _), one in zip(seen, evidence, strict=True)
        if abs(contrast_signal(one)) >= math.sqrt(CLEAR) and (contrast_signal(one) > 0.0) != (contrast == "dark")
    ]
    if not odd:
        return []
    return [
        f"Particles are taken as {contrast} on all micrographs, but {odd[0]}"
        f"{'' if len(odd) == 1 else f' and {len(odd) - 1} more'} of the {len(seen)} looked at would say the opposite: "
        f"look at their picks, or pick them by themselves with --contrast."
    ]
