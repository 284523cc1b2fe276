"""Files of an evaluation: ``evaluation.json``, a table with a line per thing that was judged, ``evaluation.html``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from equivox.formats.atomic import require_absent, require_folder, write_json, write_text
from equivox.formats.tables import as_csv

JSON_NAME, PAGE_NAME = "evaluation.json", "evaluation.html"


def evaluation_paths(out: Path, table: str) -> list[Path]:
    """Where the three files of an evaluation lie."""
    return [out / name for name in (JSON_NAME, table, PAGE_NAME)]


def write_evaluation_files(
    out: Path,
    document: dict[str, Any],
    page: str,
    *,
    table: str,
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    overwrite: bool,
) -> list[Path]:
    """Write all three; returns their paths.

    Parameters
    ----------
    out
        Output folder.
    document
        Content of ``evaluation.json``.
    page
        HTML.
    table, header, rows
        Name and content of the CSV table.
    overwrite
        Whether files of an earlier evaluation may be replaced.

    Raises
    ------
    OutputError
        If a file is there already and ``overwrite`` is not given, or the folder cannot be written.
    """
    paths = evaluation_paths(out, table)
    require_folder(out)
    require_absent(paths, overwrite=overwrite)
    write_json(paths[0], document)
    write_text(paths[1], as_csv(header, rows))
    write_text(paths[2], page)
    return paths
