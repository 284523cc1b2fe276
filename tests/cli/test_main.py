"""The way in and the one way out of every command."""

from __future__ import annotations

import errno
import json
import logging
import subprocess
import sys
from typing import Any

import pytest

import equivox
from equivox.cli import main as entry
from equivox.errors import (
    ConfigError,
    EquivoxError,
    GeometryError,
    InputError,
    MissingExtraError,
    ModelFolderError,
    OutputError,
)

HEAVY = {
    "torch", "numpy", "scipy", "nibabel", "nilearn", "matplotlib", "jinja2", "lightning", "monai", "sklearn", "pandas",
    "distributed", "dask", "torchmetrics", "SimpleITK", "e3nn", "roma", "psutil",
}  # fmt: skip

WALK = """
import contextlib, io, json, sys
from equivox.cli.main import app, main

def paths(node, prefix=()):
    yield prefix
    for name in node.resolved_commands():
        if not name.startswith("-"):
            yield from paths(node[name], (*prefix, name))

seen = {}
for path in paths(app):
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        code = main([*path, "--help"])
    seen[" ".join(path)] = [code, text.getvalue(), sorted(set(sys.modules) & set(json.loads(sys.argv[1])))]
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def helps() -> dict[str, tuple[int, str, list[str]]]:
    """Exit code, text and heavy libraries loaded for the help of every command, in one fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", WALK, json.dumps(sorted(HEAVY))], capture_output=True, text=True, check=True
    )
    found: dict[str, tuple[int, str, list[str]]] = json.loads(done.stdout)
    return found


def test_no_help_loads_a_heavy_library(helps: dict[str, tuple[int, str, list[str]]]) -> None:
    assert {
        "",
        "pose",
        "pose predict",
        "pose evaluate",
        "pose train",
        "pose apply",
        "pose convert",
        "pose average",
        "shapes train",
        "shapes evaluate",
        "shapes predict",
        "model",
        "demo",
        "doctor",
    } <= set(helps)
    assert {path: loaded for path, (_, _, loaded) in helps.items() if loaded} == {}


def test_every_help_says_what_the_command_does(helps: dict[str, tuple[int, str, list[str]]]) -> None:
    for path, (code, text, _) in helps.items():
        assert code == 0, path
        assert text.startswith(f"Usage: equivox {path}".rstrip()), path
        assert "--debug" in text, path


def test_every_command_shows_two_examples(helps: dict[str, tuple[int, str, list[str]]]) -> None:
    groups = {path.rsplit(" ", 1)[0] for path in helps if " " in path} | {""}
    for path, (_, text, _) in helps.items():
        if path not in groups and path != "completion":
            assert text.count(f"\nequivox {path} ") + text.count(f"\nequivox {path}\n") >= 2, path


def test_the_top_level_lists_commands_in_two_groups(helps: dict[str, tuple[int, str, list[str]]]) -> None:
    text = helps[""][1]
    work, know = text.index(" Work "), text.index(" Know and keep ")
    for name, first, last in [
        ("pose", work, know), ("shapes", work, know), ("encode", work, know), ("images", work, know),
        ("demo", work, know), ("model", know, len(text)),
    ]:  # fmt: skip
        assert f"│ {name} " in text[first:last], name


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import equivox, sys; dir(equivox); print(sorted(set(sys.modules) & {'torch', 'numpy', 'cyclopts'}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == equivox.__version__


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["poze"], 'Unknown command "poze". Did you mean "pose"?'),
        (["pose", "predct"], 'Did you mean "predict"?'),
        (
            ["pose", "predict", "a.nii", "--out", "x", "--write-maks"],
            "Unknown option: --write-maks. Did you mean --write-mask?",
        ),
        (["pose", "predict", "a.nii"], "--out"),
        (["pose", "predict", "a.nii", "--out", "x", "--workers", "two"], '"two"'),
        (["pose", "predict", "a.nii", "--out", "x", "--transform-format", "itkk"], 'Did you mean "itk"?'),
        (["completion", "csh"], '"bash", "zsh", "fish"'),
        (["--flag"], "--flag"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert entry.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert "--help" in err
    assert "Traceback" not in err
    assert err.startswith("equivox: ")
    assert err.count("\n") == 1


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def app(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(entry, "app", app)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("a.nii is empty."), 3),
        (GeometryError("a.nii has a singular affine."), 3),
        (ConfigError("--workers is 0."), 2),
        (OutputError("out cannot be written."), 2),
        (ModelFolderError("no model there."), 4),
        (MissingExtraError("nibabel", "mri", "reading NIfTI"), 5),
        (OSError(errno.ENOSPC, "No space left on device", "out/x"), 2),
        (PermissionError(errno.EACCES, "Permission denied", "in/x"), 3),
        (MemoryError(), 3),
        (KeyError("x"), 70),
        (KeyboardInterrupt(), 130),
    ],
)
def test_every_error_has_its_exit_code_and_no_traceback_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int
) -> None:
    raising(monkeypatch, error)
    assert entry.main(["pose", "predict"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("equivox: ")
    assert err.count("\n") == 1
    if isinstance(error, EquivoxError):
        assert str(error) in err
    assert entry.main(["pose", "predict", "--debug"]) == code
    assert "Traceback" in capsys.readouterr().err


def test_an_error_that_ends_the_run_is_json_too_if_json_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(monkeypatch, InputError("a.nii is empty."))
    assert entry.main(["pose", "predict", "--json"]) == 3
    out, err = capsys.readouterr()
    document: dict[str, Any] = json.loads(out)
    assert document["errors"] == [{"code": "EQV-INPUT", "message": "a.nii is empty."}]
    assert document["version"] == equivox.__version__
    assert set(document) == {"schema", "version", "results", "warnings", "errors"}
    assert "a.nii is empty." in err


def test_the_log_is_shown_with_debug_and_warnings_always(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def app(*arguments: object, **options: object) -> int:
        logging.getLogger("equivox.run.items").debug("item 3 failed: here is where")
        logging.getLogger("equivox.run.items").warning("take care")
        return 0

    monkeypatch.setattr(entry, "app", app)
    assert entry.main(["pose"]) == 0
    assert capsys.readouterr().err == "take care\n"
    assert entry.main(["pose", "--debug"]) == 0
    assert capsys.readouterr().err == "item 3 failed: here is where\ntake care\n"


def test_debug_is_not_taken_from_behind_a_double_dash() -> None:
    assert entry._take_debug(["pose", "--debug", "--", "--debug"]) == (["pose", "--", "--debug"], True)
    assert entry._take_debug(["pose", "--", "--debug"]) == (["pose", "--", "--debug"], False)


def test_a_reader_that_goes_away_is_no_error() -> None:
    code = "import sys; sys.argv = ['equivox', 'completion', 'bash']; from equivox.cli.main import run; run()"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(60) == 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_that_knows_the_commands(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    assert entry.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("pose", "predict", "doctor", "write-mask"):
        assert word in script
