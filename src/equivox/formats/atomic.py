"""Writing files so that a reader never meets half of one.

A file is written under a temporary name in the folder where it belongs and moved into place when it is whole. An
interrupted run leaves either the old file or the new one, and nothing else.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from equivox.errors import OutputError

TEMPORARY_PREFIX = ".writing-"


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside ``path`` (same file ending) that replaces ``path`` when the block ends well.

    Parent folders are made. If the block raises, the temporary file is removed and ``path`` stays as it was.

    Raises
    ------
    OutputError
        If the folder cannot be made or written, or the disk is full: any :class:`OSError` of the block.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "note.txt"
    >>> with atomic_path(target) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    target = Path(path)
    temporary = target.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}-{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        raise OutputError(cannot_write(target, error)) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def cannot_write(path: Path, error: OSError) -> str:
    """One sentence for a failed write: which file, why, what to do."""
    reason = error.strerror or str(error)
    return f"{path} cannot be written ({reason}); choose another --out, or make room and rights there."


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text with ``\\n`` line ends, whole or not at all."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)


def write_json(path: Path | str, document: object) -> None:
    """Write indented JSON, whole or not at all; NaN and infinity are refused (ValueError): JSON has neither."""
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def require_folder(folder: Path | str) -> Path:
    """Make ``folder`` and prove that files can be written in it, before hours of work depend on it.

    Raises
    ------
    OutputError
        If it is a file, cannot be made, or cannot be written.
    """
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path} is a file; --out names a folder.")
    probe = path / f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}-probe"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"\0")
    except OSError as error:
        raise OutputError(cannot_write(path, error)) from error
    finally:
        with suppress(OSError):
            probe.unlink()
    return path


def require_absent(paths: Iterable[Path | str], *, overwrite: bool, resumable: bool = False) -> None:
    """Refuse to replace results: OutputError that names the first existing path, unless ``overwrite``.

    ``resumable``: the command has ``--resume``, which the sentence then names.
    """
    existing = [Path(path) for path in paths if Path(path).exists()]
    if existing and not overwrite:
        more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        what = "them" if more else "it"
        keep = ", --resume to keep what is done," if resumable else ""
        raise OutputError(
            f"{existing[0]}{more} exists already; pass --overwrite to replace {what}{keep} or choose another --out."
        )


def clear_unfinished(folder: Path) -> None:
    """Remove files that were being written below ``folder`` when a process was killed; no other may write there now."""
    for leftover in folder.rglob(f"{TEMPORARY_PREFIX}*"):
        if leftover.is_file():
            leftover.unlink(missing_ok=True)
