"""The exceptions that a user may see: one sentence that says what is wrong, where, and what to do.

``code`` is stable: it appears in ``--json`` output and in the documentation. ``exit_code`` is what the command
line returns when the error ends the whole run.
"""

from __future__ import annotations

from collections.abc import Iterable


class EquivoxError(Exception):
    """A mistake that its reader can mend; never raised for a bug of ours."""

    code = "EQV-000"
    exit_code = 2


class InputError(EquivoxError):
    """A file, table or array that cannot be used as it is."""

    code = "EQV-INPUT"
    exit_code = 3


class GeometryError(EquivoxError):
    """A matrix, affine or grid without the property that is needed (invertible, proper, finite ...)."""

    code = "EQV-GEOMETRY"
    exit_code = 3


class ConfigError(EquivoxError):
    """An option or a configuration value outside its range, or two that exclude each other."""

    code = "EQV-CONFIG"
    exit_code = 2


class GridSymmetryError(ConfigError, ValueError):
    """A strided layer that would meet a grid off centre, so that quarter turns would no longer be exact."""


class OutputError(EquivoxError):
    """A place that cannot be written to, or results that would be overwritten."""

    code = "EQV-OUTPUT"
    exit_code = 2


class ModelFolderError(EquivoxError):
    """A model folder or a checkpoint that is missing, damaged or of another kind."""

    code = "EQV-MODEL"
    exit_code = 4


class MissingExtraError(EquivoxError):
    """An optional package is not installed."""

    code = "EQV-EXTRA"
    exit_code = 5

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f'{purpose} needs the package {package}; install it with: pip install "equivox[{extra}]"')
        self.package = package
        self.extra = extra
        self.purpose = purpose

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str, str]]:
        """Travel between processes whole."""
        return type(self), (self.package, self.extra, self.purpose)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Part of a sentence: ``"; did you mean 'lmax'?"`` where a known word is near, else nothing."""
    from difflib import get_close_matches

    near = get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def reason_of(error: Exception) -> str:
    """Part of a sentence: the first line of what another library says, without the dots at its end."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
