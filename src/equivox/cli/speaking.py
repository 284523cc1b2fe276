"""How commands speak: results for machines on stdout, lines for people on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from equivox import __version__
from equivox.cli.options import Output

if TYPE_CHECKING:
    from equivox.run.batch import InputOutcome
    from equivox.run.classification import ClassifyRun, FileOutcome
    from equivox.run.device import DeviceChoice
    from equivox.run.training_session import Trained

MOST_REASONS = 20


@runtime_checkable
class FinishedRun(Protocol):
    """What a command over many inputs returns."""

    @property
    def exit_code(self) -> int:
        """Of the command."""

    def as_dict(self) -> dict[str, object]:
        """The document of ``--json``."""


Finished = TypeVar("Finished", bound=FinishedRun)


def given_values(options: object) -> dict[str, Any]:
    """Options that were given on the command line, by name."""
    found = {field.name: getattr(options, field.name) for field in fields(options)}  # type: ignore[arg-type]
    return {name: value for name, value in found.items() if value is not None}


def print_document(document: Mapping[str, Any]) -> None:
    """The one JSON document of ``--json``."""
    print(json.dumps(document, indent=2, ensure_ascii=False))


def print_results(
    schema: str,
    results: Sequence[Mapping[str, Any]],
    warnings: Sequence[str] = (),
    errors: Sequence[Mapping[str, str]] = (),
) -> None:
    """The document of ``--json`` of a command that is no run over inputs."""
    print_document(
        {"schema": schema, "version": __version__, "results": list(results), "warnings": list(warnings),
         "errors": list(errors)}
    )  # fmt: skip


def say(lines: Iterable[str]) -> None:
    """Lines on stderr, at once."""
    print("\n".join(lines), file=sys.stderr, flush=True)


def say_now_and_then(done: int, total: int, what: str) -> None:
    """One line on stderr at every tenth of the work."""
    if done == total or done % max(1, total // 10) == 0:
        say([f"[{done}/{total}] {what}"])


def epoch_lines(
    speak: Output, epochs: int, shown: Sequence[str] | None = None
) -> Callable[[int, Mapping[str, float]], None] | None:
    """One line on stderr per epoch with the numbers ``shown`` (all where None); None where nothing is to be said."""

    def line(epoch: int, row: Mapping[str, float]) -> None:
        names = [name for name in (row if shown is None else shown) if name in row]
        say([f"[{epoch + 1}/{epochs}] " + "  ".join(f"{name} {row[name]:.4g}" for name in names)])

    return None if speak.quiet else line


def model_line(model: Mapping[str, str], device: DeviceChoice) -> str:
    """What was run, and where."""
    return f"model {model['name']}, device {device.device} ({device.reason})"


def lost_lines(outcomes: Sequence[InputOutcome[Any, Any]], what: str) -> list[str]:
    """How many files have no result and why, each by its name; nothing where all have one."""
    lost = [outcome for outcome in outcomes if outcome.result is None]
    reasons = [
        f"  {one.reason}" if one.entry.path.name in one.reason else f"  {one.entry.name}: {one.reason}"
        for one in lost[:MOST_REASONS]
    ]
    return [f"{what}: {len(lost)} of {len(outcomes)}", *reasons] if lost else []


def close_training(
    speak: Output, schema: str, trained: Trained, out: Path, facts: Mapping[str, Any], lines: Sequence[str] = ()
) -> None:
    """Say what a training has made and where it is, with further ``facts`` for machines and ``lines`` for people."""
    if speak.json:
        result = {
            "out": str(out), "model": str(trained.model.path), "sha256": trained.model.sha256,
            "parameters": trained.parameters, "epochs": trained.fitted.epochs, **facts,
            "device": trained.device.as_dict(),
        }  # fmt: skip
        print_results(schema, [result], trained.warnings)
    if not speak.quiet:
        say(
            [
                *(f"note: {text}" for text in trained.warnings),
                f"device {trained.device.device} ({trained.device.reason}), {trained.parameters} parameters",
                *lines,
                f"model: {trained.model.path}",
            ]
        )


def best_of(trained: Trained) -> dict[str, Any]:
    """Where the best epoch was, for machines."""
    return {"best_epoch": trained.fitted.best_epoch, "best_value": trained.fitted.best_value}


def close_evaluation(
    speak: Output, document: Mapping[str, Any], paths: Sequence[Path], summary: Sequence[str], notes: Sequence[str]
) -> None:
    """Say the numbers of an evaluation, then ``notes`` and where the page is (the last of ``paths``)."""
    if speak.json:
        print_document({**document, "files": [str(path) for path in paths]})
    else:
        print("\n".join(summary))
    if not speak.quiet:
        say([*notes, f"page: {paths[-1]}"])


def say_classified(what: str) -> Callable[[int, int, FileOutcome], None]:
    """One line on stderr per file that was classified; ``what`` names the things in it, in the plural."""

    def line(done: int, total: int, outcome: FileOutcome) -> None:
        rows = outcome.rows()
        text = f"[{done}/{total}] {outcome.entry.path.name}  {'kept' if outcome.resumed else rows[0].status}"
        if outcome.result is not None and len(rows) == 1 and rows[0].probability is not None:
            text += f"  {rows[0].label}  {rows[0].probability:.2f}"
        elif outcome.result is not None:
            text += f"  {len(rows)} {what}"
        say([text])

    return line


def classification_lines(finished: ClassifyRun) -> list[str]:
    """What was run, what has no answer, where the results are."""
    lost = lost_lines(finished.outcomes, "without an answer")
    return [model_line(finished.model, finished.device), *lost, f"results: {finished.out / 'predictions.csv'}"]


def close_run(speak: Output, finished: Finished, lines: Callable[[Finished], Sequence[str]]) -> int:
    """Say what a run has made, all of it for machines and in ``lines`` for people; the exit code."""
    if speak.json:
        print_document(finished.as_dict())
    if not speak.quiet:
        say(lines(finished))
    return finished.exit_code
