"""The frame of a command over many inputs: what it refuses, keeps, clears away, and says at the end."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from equivox.errors import OutputError
from equivox.run.batch import (
    InputOutcome,
    RunChoice,
    clear_the_way,
    close_record,
    errors_of,
    exit_code_of,
    note_inputs,
    run_inputs,
)
from equivox.run.items import Interrupted
from equivox.run.record import RUN_JSON, RunRecord

TASK = """
import os, pathlib, signal
from dataclasses import dataclass
from equivox.errors import InputError, OutputError
from equivox.formats.atomic import atomic_path, write_json
from equivox.formats.markers import marker_path, read_marker
from equivox.formats.scans import ScanInput
from equivox.run.batch import if_still_true
from equivox.run.record import file_sha256

@dataclass(frozen=True)
class Job:
    entry: ScanInput
    out: pathlib.Path
    digest: str

    @property
    def marker(self):
        return marker_path(self.out, self.entry.stem)

    @property
    def traces(self):
        return (self.marker,)

@dataclass(frozen=True)
class Counted:
    input_sha256: str
    digest: str
    letters: int

def state():
    return None

def count(state, job):
    text = job.entry.path.read_text() if not job.entry.problem else ""
    if not text:
        raise InputError(f"{job.entry.name} is empty; give one with letters.")
    if text == "full":
        raise OutputError("no room")
    if text == "leave":
        (job.out / ".writing-12345678-x").write_text("half")
    if text == "die":
        with atomic_path(job.marker) as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    found = Counted(file_sha256(job.entry.path), job.digest, len(text))
    write_json(job.marker, {"schema": "counted/1", "sha256": found.input_sha256, "digest": job.digest, "n": len(text)})
    return found

def earlier(job):
    found = read_marker(job.marker, "counted/1", lambda one: Counted(one["sha256"], one["digest"], int(one["n"])))
    return if_still_true(found, job)

def jobs(folder, out, digest="a"):
    return [Job(ScanInput(path, path.stem), out, digest) for path in sorted(folder.glob("*.txt"))]
"""


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """A task that counts letters, in a module that worker processes can import."""
    folder = tmp_path_factory.mktemp("task")
    (folder / "batch_test_task.py").write_text(TASK)
    sys.path.insert(0, str(folder))
    yield importlib.import_module("batch_test_task")
    sys.path.remove(str(folder))
    sys.modules.pop("batch_test_task")


def run(task: ModuleType, folder: Path, out: Path, *, digest: str = "a", stop_at: int = -1, **options: Any) -> Any:
    """All letters of ``folder``; returns the outcomes."""
    choice = RunChoice(**options)
    clear_the_way(out, ("letters.txt",), choice)
    record = RunRecord(["count"], choice.as_dict())

    def finish(outcomes: tuple[Any, ...]) -> tuple[Any, ...]:
        (out / "letters.txt").write_text(" ".join(str(one.result.letters) for one in outcomes if one.result))
        note_inputs(record, outcomes, lambda one: {"stem": one.entry.stem})
        return outcomes

    def progress(done: int, total: int, outcome: object) -> None:
        if done == stop_at:
            raise KeyboardInterrupt

    outcomes = run_inputs(
        task.count, task.jobs(folder, out, digest), initializer=task.state, run=choice, out=out, record=record,
        earlier=task.earlier, outcome=InputOutcome, finish=finish, progress=progress,
    )  # fmt: skip
    close_record(record, out, exit_code_of(outcomes))
    return outcomes


def texts(folder: Path, **contents: str) -> Path:
    folder.mkdir()
    for name, text in contents.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def record_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / RUN_JSON).read_text())
    return found


def test_what_cannot_be_used_is_said_in_order_and_the_rest_is_done(task: ModuleType, tmp_path: Path) -> None:
    folder, out = texts(tmp_path / "in", a="four", b="", c="seven"), tmp_path / "out"
    outcomes = run(task, folder, out)
    assert exit_code_of(outcomes) == 1
    assert [one.entry.stem for one in outcomes] == ["a", "b", "c"]
    assert errors_of(outcomes) == [
        {"input": f"{folder}/b.txt", "code": "EQV-INPUT", "message": f"{folder}/b.txt is empty; give one with letters."}
    ]
    record = record_of(out)
    assert record["outcome"] == "some_failed"
    assert [(one["stem"], one["resumed"]) for one in record["inputs"]] == [("a", False), ("b", False), ("c", False)]
    assert [one["code"] for one in record["failures"]] == ["EQV-INPUT"]
    assert (out / "letters.txt").read_text() == "4 5"


@pytest.mark.parametrize(
    ("contents", "code", "outcome"),
    [
        ({"a": "one"}, 0, "done"),
        ({"a": ""}, 3, "nothing_done"),
        ({"a": "", "b": "full"}, 2, "nothing_done"),
        ({"a": "full", "b": "two"}, 1, "some_failed"),
    ],
)
def test_exit_codes(task: ModuleType, tmp_path: Path, contents: dict[str, str], code: int, outcome: str) -> None:
    outcomes = run(task, texts(tmp_path / "in", **contents), tmp_path / "out")
    assert exit_code_of(outcomes) == code
    assert record_of(tmp_path / "out")["outcome"] == outcome


def test_results_stay_unless_they_may_go(task: ModuleType, tmp_path: Path) -> None:
    folder, out = texts(tmp_path / "in", a="one", b="three"), tmp_path / "out"
    run(task, folder, out)
    with pytest.raises(OutputError, match=r"\(and 2 more\) exists already; pass --overwrite to replace them, --resume"):
        run(task, folder, out)
    assert not any(one.resumed for one in run(task, folder, out, overwrite=True))
    assert all(one.resumed for one in run(task, folder, out, resume=True))
    (folder / "a.txt").write_text("other")
    assert [one.resumed for one in run(task, folder, out, resume=True)] == [False, True]
    assert not any(one.resumed for one in run(task, folder, out, resume=True, digest="b"))


def test_a_failure_takes_its_earlier_marker_away(task: ModuleType, tmp_path: Path) -> None:
    folder, out = texts(tmp_path / "in", a="one"), tmp_path / "out"
    run(task, folder, out)
    assert (out / "items" / "a.json").exists()
    (folder / "a.txt").write_text("")
    run(task, folder, out, resume=True)
    assert not (out / "items" / "a.json").exists()


def test_an_interrupted_run_writes_what_is_finished_and_goes_on(task: ModuleType, tmp_path: Path) -> None:
    folder, out = texts(tmp_path / "in", a="one", b="three", c="seven"), tmp_path / "out"
    with pytest.raises(Interrupted):
        run(task, folder, out, stop_at=2)
    assert (out / "letters.txt").read_text() == "3 5"
    assert record_of(out)["outcome"] == "interrupted"
    assert [one.resumed for one in run(task, folder, out, resume=True)] == [True, True, False]
    assert (out / "letters.txt").read_text() == "3 5 5"


def test_what_was_being_written_when_a_process_died_is_cleared_away(task: ModuleType, tmp_path: Path) -> None:
    folder, out = texts(tmp_path / "in", a="one", b="die"), tmp_path / "out"
    (out / "items").mkdir(parents=True)
    for name in (".writing-12345678-letters.txt", "items/.writing-12345678-a.json"):
        (out / name).write_text("half, of an earlier run")
    outcomes = run(task, folder, out, workers=2, resume=True)
    assert [one.code for one in outcomes] == ["", "EQV-WORKER"]
    assert sorted(path.name for path in out.rglob("*")) == ["a.json", "items", "letters.txt", "run.json"]


def test_an_interrupted_run_leaves_nothing_half_written(task: ModuleType, tmp_path: Path) -> None:
    folder, out = texts(tmp_path / "in", a="leave", b="one"), tmp_path / "out"
    with pytest.raises(Interrupted):
        run(task, folder, out, stop_at=1)
    assert sorted(path.name for path in out.rglob("*")) == ["a.json", "items", "letters.txt", "run.json"]
