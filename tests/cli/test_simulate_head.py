"""``equivox simulate head`` on the command line: exit codes, sentences, one JSON document."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from equivox.cli.main import main


def test_one_stack_and_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "heads"
    words = ["simulate", "head", "--out", str(out), "--count", "1", "--validation", "0", "--modes", "0", "0", "1", "0"]
    assert main([*words, "--thick-slices", "0", "--no-motion", "--seed", "3", "--json"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["schema"] == "equivox.simulate.head/1"
    assert [row["frame_id"] for row in document["results"]] == ["sim-00000"]
    assert document["results"][0]["largest_turn_deg"] == 0.0
    assert "[1/1] sim-00000  made  procedural" in captured.err
    assert (out / "training" / "img" / "sim-00000.nii.gz").is_file()
    assert main(words) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--count", "0"], 2, "--count is 0; it must be 1 to 1000000."),
        (["--count", "two"], 2, "two"),
        (["--noise-ratio", "9", "3"], 2, "noise_ratio is 9 to 3; give two numbers, the lower first."),
        (["--modes", "0", "0", "0", "0"], 2, "mode_weights"),
        (["--templates", "nowhere"], 3, "nowhere is not a folder"),
        (["--device", "gpu"], 2, "gpu"),
        (["--workers", "0"], 2, "--workers is 0"),
    ],
)
def test_mistakes_are_one_sentence(
    words: list[str], code: int, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", "head", "--out", str(tmp_path / "heads"), *words]) == code
    err = capsys.readouterr().err.strip()
    assert sentence in err
    assert len(err.splitlines()) == 1


def test_out_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "head"]) == 2
    assert "--out" in capsys.readouterr().err
