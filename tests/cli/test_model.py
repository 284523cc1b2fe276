"""``equivox model`` as a user types it."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from equivox.cli.main import main

FindFixture = Callable[[str], Path]
SMALL = ["--segment-size", "32", "--rotate-size", "16"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fixture_path: FindFixture) -> Path:
    """A home with one imported model, ``tiny``."""
    monkeypatch.setenv("EQUIVOX_HOME", str(tmp_path / "home"))
    checkpoints = [str(fixture_path(f"e3pose/{name}")) for name in ("23_unet_tiny.ckpt", "23_e3cnn_tiny.pth")]
    out = tmp_path / "home" / "tiny"
    assert main(["model", "import", *checkpoints, "--out", str(out), *SMALL]) == 0
    return tmp_path / "home"


def test_list_info_and_verify_an_imported_model(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["model", "list"]) == 0
    assert "tiny" in capsys.readouterr().out
    assert main(["model", "info", "tiny"]) == 0
    shown = capsys.readouterr().out
    assert "network    rotate: pose_net" in shown
    assert "poolings 1" in shown
    assert main(["model", "verify", "tiny"]) == 0
    assert "FAILED" not in capsys.readouterr().out


def test_every_json_is_one_document(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["list"], ["info", "tiny"], ["verify", "tiny"]):
        capsys.readouterr()
        assert main(["model", *arguments, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert set(document) == {"schema", "version", "results", "warnings", "errors"}
        assert document["results"]


def test_a_damaged_model_ends_with_exit_code_4(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = home / "tiny" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert main(["model", "verify", "tiny"]) == 4
    assert "FAILED weights" in capsys.readouterr().out
    assert main(["model", "info", "absent"]) == 4
    assert main(["model", "verify"]) == 2
    (home / "tiny" / "config.json").write_text("{}")
    assert main(["model", "list"]) == 4
    assert "broken: " in capsys.readouterr().err


class _Hook:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("slot", [0, 1])
def test_refusals_are_one_sentence_and_exit_code_4(
    slot: int, tmp_path: Path, fixture_path: FindFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    marker, malicious, text = tmp_path / "marker", tmp_path / "malicious.pth", tmp_path / "text.pth"
    malicious.write_bytes(pickle.dumps({"state_dict": _Hook(marker)}))
    text.write_text("no weights")
    good = [fixture_path("e3pose/23_unet_tiny.ckpt"), fixture_path("e3pose/23_e3cnn_tiny.pth")]
    wrong = [good[1 - slot], *(fixture_path(f"e3pose/{n}") for n in ("23_wrong_kind.ckpt", "23_no_known_key.pth"))]
    for bad in [*wrong, malicious, text, tmp_path, tmp_path / "absent"]:
        pair = list(good)
        pair[slot] = bad
        capsys.readouterr()
        assert main(["model", "import", *map(str, pair), "--out", str(tmp_path / "out"), *SMALL]) == 4
        said = capsys.readouterr().err.strip().splitlines()
        assert len(said) == 1
        assert str(bad) in said[0]
    assert not marker.exists()
    assert not (tmp_path / "out").exists()


def test_an_import_does_not_replace_what_is_there(
    home: Path, fixture_path: FindFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = [str(fixture_path(f"e3pose/{name}")) for name in ("23_unet_tiny.ckpt", "23_e3cnn_tiny.pth")]
    command = ["model", "import", *checkpoints, "--out", str(home / "tiny"), *SMALL]
    assert main(command) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite", "--behaviour", "published"]) == 0
    assert json.loads((home / "tiny" / "config.json").read_text())["behaviour"] == "published"


def test_help_loads_no_torch() -> None:
    code = (
        "import sys\nfrom equivox.cli.main import main\n"
        "for name in ([], ['list'], ['info'], ['verify'], ['import'], ['export']):\n"
        "    main(['model', *name, '--help'])\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
