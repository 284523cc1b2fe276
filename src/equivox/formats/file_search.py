"""From what a user names (files, folders, globs) to files of a kind; a name that leads to none says why."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from equivox.errors import InputError
from equivox.formats.scans import ScanInput, missing_sentence, with_distinct_stems, without_repeats


@dataclass(frozen=True)
class FileKind:
    """Files that a command takes.

    Parameters
    ----------
    what
        One of them, for sentences.
    named
        What a user may name, for the sentence where nothing is named.
    endings
        Of their names, in lower case.
    stem
        What the files of a result are called after.
    """

    what: str
    named: str
    endings: tuple[str, ...]
    stem: Callable[[Path], str]

    def search(self, folder: Path) -> Iterator[Path]:
        """Files below a folder, sorted, without hidden ones."""
        for path in sorted(folder.rglob("*")):
            hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
            if path.name.lower().endswith(self.endings) and path.is_file() and not hidden:
                yield path

    def require_folder(self, folder: Path, given: str) -> list[Path]:
        """Files below a folder; InputError (``given`` says what should be) if it is none or holds none."""
        if not folder.is_dir():
            state = "is no folder" if folder.exists() else "does not exist"
            raise InputError(f"{folder} {state}; give {given}.")
        files = list(self.search(folder))
        if not files:
            raise InputError(f"{self._none_in(folder)}; check the path.")
        return files

    def find(self, inputs: Sequence[str | Path]) -> list[ScanInput]:
        """Expand files, folders (searched with their subfolders) and globs, in order; a file named twice comes once.

        Raises
        ------
        InputError
            If no input is given at all.
        """
        if not inputs:
            raise InputError(f"No input was given; name {self.named}, folders, or globs in quotes.")
        return with_distinct_stems(without_repeats(entry for text in inputs for entry in self._expand(str(text))))

    def _expand(self, text: str) -> Iterator[ScanInput]:
        path = Path(text).expanduser()
        if path.is_dir():
            files = list(self.search(path))
            yield from (ScanInput(file, self.stem(file)) for file in files)
            if not files:
                yield ScanInput(path, path.name, problem=f"{self._none_in(path)}.")
        elif path.exists():
            yield ScanInput(path, self.stem(path))
        elif not glob.has_magic(text):
            yield ScanInput(path, path.name, problem=missing_sentence(path))
        else:
            matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
            for match in matches:
                yield from self._expand(str(match)) if match.is_dir() else (ScanInput(match, self.stem(match)),)
            if not matches:
                problem = f"No file matches {text!r}; check the pattern and the folder."
                yield ScanInput(path, path.name, problem=problem)

    def _none_in(self, folder: Path) -> str:
        return f"{folder} holds no {self.what} ({', '.join(self.endings)})"
