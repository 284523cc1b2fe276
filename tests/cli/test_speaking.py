"""What commands say, and on which stream."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from equivox.cli.options import Output
from equivox.cli.speaking import (
    close_evaluation,
    close_run,
    epoch_lines,
    given_values,
    lost_lines,
    print_document,
    print_results,
    say,
    say_now_and_then,
)
from equivox.formats.scans import ScanInput
from equivox.run.batch import InputOutcome


@dataclass
class Options:
    first: int | None = None
    second: str | None = None


def test_only_what_was_given_replaces_anything() -> None:
    assert given_values(Options(second="x")) == {"second": "x"}


def test_documents_go_to_stdout_and_lines_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    print_document({"name": "größe"})
    say(["one", "two"])
    for done in range(1, 41):
        say_now_and_then(done, 40, "asked")
    streams = capsys.readouterr()
    assert json.loads(streams.out) == {"name": "größe"}
    lines = streams.err.splitlines()
    assert lines[:2] == ["one", "two"]
    assert lines[2:] == [f"[{done}/40] asked" for done in range(4, 41, 4)]


def test_an_epoch_is_a_line_of_the_numbers_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    line = epoch_lines(Output(), 3, ("val_loss", "val_angle", "train_loss"))
    assert line is not None
    line(0, {"train_loss": 0.123456, "val_loss": 2.0, "lr": 1.0})
    assert capsys.readouterr().err == "[1/3] val_loss 2  train_loss 0.1235\n"
    assert epoch_lines(Output(quiet=True), 3) is None


def test_what_is_lost_is_counted_and_named_once() -> None:
    outcomes = [
        InputOutcome(ScanInput(Path("in/a.nii"), "a"), None, "EQV-INPUT", "in/a.nii is empty; copy it again."),
        InputOutcome(ScanInput(Path("in/b.nii"), "b"), None, "EQV-WORKER", "The worker process died."),
        InputOutcome(ScanInput(Path("in/c.nii"), "c"), 1),
    ]
    assert lost_lines(outcomes, "without a pose") == [
        "without a pose: 2 of 3", "  in/a.nii is empty; copy it again.", "  in/b.nii: The worker process died.",
    ]  # fmt: skip
    assert lost_lines(outcomes[2:], "without a pose") == []


def test_an_evaluation_is_a_document_or_lines(capsys: pytest.CaptureFixture[str]) -> None:
    paths = [Path("evaluation.json"), Path("evaluation.html")]
    close_evaluation(Output(), {"accuracy": 1.0}, paths, ["accuracy: 1"], ["note: few"])
    streams = capsys.readouterr()
    assert (streams.out, streams.err) == ("accuracy: 1\n", "note: few\npage: evaluation.html\n")
    close_evaluation(Output(json=True, quiet=True), {"accuracy": 1.0}, paths, ["accuracy: 1"], ["note: few"])
    streams = capsys.readouterr()
    assert json.loads(streams.out) == {"accuracy": 1.0, "files": ["evaluation.json", "evaluation.html"]}
    assert streams.err == ""


@dataclass
class Counted:
    exit_code: int

    def as_dict(self) -> dict[str, object]:
        return {"schema": "counted/1", "letters": 3}


def test_a_run_is_told_to_machines_and_to_people_each_in_their_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert close_run(Output(json=True), Counted(1), lambda run: [f"exit code {run.exit_code}"]) == 1
    streams = capsys.readouterr()
    assert json.loads(streams.out) == {"schema": "counted/1", "letters": 3}
    assert streams.err == "exit code 1\n"
    assert close_run(Output(quiet=True), Counted(0), lambda run: ["never"]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_document_of_results_has_all_its_parts_also_where_they_are_empty(capsys: pytest.CaptureFixture[str]) -> None:
    print_results("made/1", [{"out": "a"}], ("few",))
    document = json.loads(capsys.readouterr().out)
    assert list(document) == ["schema", "version", "results", "warnings", "errors"]
    assert (document["results"], document["warnings"], document["errors"]) == ([{"out": "a"}], ["few"], [])
