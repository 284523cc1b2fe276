"""Each check of the doctor says ok on a sound machine and something else on one that is not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from equivox.errors import ModelFolderError, OutputError
from equivox.run import checkup


def test_the_self_test_passes_and_its_control_fails() -> None:
    finding = checkup.check_equivariance()
    assert finding.level == "ok"
    worst, control = finding.facts["worst_error"], finding.facts["control_error"]
    assert isinstance(worst, float)
    assert isinstance(control, float)
    assert 0 < worst < 1e-5 < 1e-2 < control


def test_the_self_test_sees_a_layer_that_is_not_equivariant(monkeypatch: pytest.MonkeyPatch) -> None:
    original = checkup.SteerableConv3d
    monkeypatch.setattr(
        checkup,
        "SteerableConv3d",
        lambda first, second, size, generator: (
            checkup.plain_control(first, second, generator=generator, dtype=checkup.torch.float32)
            if first == "1x0e"
            else original(first, second, size, generator=generator)
        ),
    )
    assert checkup.check_equivariance().level == "fail"


def test_a_harmful_release_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    found = checkup.versions()
    assert checkup.check_versions().level == "ok"
    monkeypatch.setattr(checkup, "versions", lambda: {**found, "lightning": "2.6.3"})
    finding = checkup.check_versions()
    assert finding.level == "fail"
    assert "lightning 2.6.3" in finding.text


def test_little_memory_is_noted_and_a_container_s_limit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    gib = checkup.GIB
    monkeypatch.setattr(checkup, "_container_limit_gib", lambda: None)
    monkeypatch.setattr(checkup.psutil, "virtual_memory", lambda: SimpleNamespace(total=16 * gib, available=12 * gib))
    assert checkup.check_memory().text == "12.0 of 16.0 GiB free"
    monkeypatch.setattr(checkup, "_container_limit_gib", lambda: 2.0)
    finding = checkup.check_memory()
    assert (finding.level, finding.facts) == ("note", {"total_gib": 2.0, "available_gib": 2.0})


def test_a_folder_that_cannot_be_written_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [finding.level for finding in checkup.check_places()] == ["ok", "ok"]

    def refuse(folder: Path) -> Path:
        raise OutputError(f"{folder} cannot be written (Read-only file system)")

    monkeypatch.setattr(checkup, "require_folder", refuse)
    assert [finding.level for finding in checkup.check_places()] == ["note", "fail"]


def test_extras_come_from_the_metadata_and_missing_ones_say_how(monkeypatch: pytest.MonkeyPatch) -> None:
    found = checkup.extras()
    assert set(found) == {"mri", "cryo", "shapes", "train", "cluster", "export"}
    assert "nibabel" in found["mri"]
    monkeypatch.setattr(checkup, "_is_installed", lambda package: package != "nibabel")
    levels = {finding.name: finding for finding in checkup.check_extras()}
    assert levels["extra mri"].level == "note"
    assert levels["extra mri"].text == 'nibabel not installed; if you need it: pip install "equivox[mri]"'
    assert levels["extra cluster"].level == "ok"


def test_a_broken_model_folder_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(checkup, "list_models", lambda: [(tmp_path / "bad", ModelFolderError("bad lacks its weights"))])
    (finding,) = checkup.check_models()
    assert (finding.name, finding.level, finding.text) == ("model bad", "fail", "bad lacks its weights")


def test_no_model_at_all_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "list_models", list)
    (finding,) = checkup.check_models()
    assert finding.level == "note"
