"""Markers: one JSON file per input of a run, written last, which says what was found; ``--resume`` trusts it.

``DIR/items/<stem>.json`` holds its schema, the checksum of the input's bytes, and a digest of everything else that
decides the result (options, model, version).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from equivox.formats.atomic import write_json

ITEMS = "items"
Result = TypeVar("Result")


@dataclass(frozen=True)
class MarkedInput:
    """What every marker says, whatever was found."""

    input: str
    """The path as the user gave it."""
    stem: str
    """What its files begin with."""
    input_sha256: str
    """Checksum of the input's bytes."""
    digest: str
    """Of everything else that decides the result."""

    def write_marker(self, out: Path, schema: str, found: Mapping[str, object]) -> None:
        """Write the marker that ``--resume`` trusts, with what was ``found``; call this last."""
        head = {name: getattr(self, name) for name in MarkedInput.__dataclass_fields__}
        write_json(marker_path(out, self.stem), {"schema": schema, **head, **found})


def head_of(document: Mapping[str, Any]) -> dict[str, str]:
    """The fields of :class:`MarkedInput` in a marker's document; KeyError where one is missing."""
    return {name: str(document[name]) for name in MarkedInput.__dataclass_fields__}


def marker_path(out: Path, stem: str) -> Path:
    """Where the marker of an input lies."""
    return out / ITEMS / f"{stem}.json"


def read_marker(path: Path, schema: str, parse: Callable[[Any], Result | None]) -> Result | None:
    """What ``parse`` makes of a marker's document; None where it is missing, broken or of another schema."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return parse(found) if found["schema"] == schema else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError):
        return None


def digest_of(values: Mapping[str, object]) -> str:
    """SHA-256 of plain values in a fixed order: of everything that decides a result."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
