from __future__ import annotations

import json

import pytest

from equivox.cli.main import main
from equivox.run import checkup
from equivox.run.checkup import Finding


def test_the_doctor_finds_this_installation_sound(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "equivox.doctor/1"
    names = [finding["name"] for finding in document["results"]]
    assert names[:5] == ["versions", "device", "memory", "current folder", "temporary folder"]
    assert names[-1] == "equivariance"
    assert {"extra mri", "extra cluster", "extra train"} <= set(names)
    assert document["errors"] == []


def test_one_failed_check_makes_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    findings = [
        Finding("memory", "ok", "much"),
        Finding("model x", "fail", "damaged"),
        Finding("extra", "note", "none"),
    ]
    monkeypatch.setattr(checkup, "check_installation", lambda: iter(findings))
    assert main(["doctor"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines() == ["  ok    memory: much", "  fail  model x: damaged", "  note  extra: none"]
    assert err == "equivox: 1 check(s) failed: model x.\n"
    assert main(["doctor", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["errors"] == [{"code": "EQV-DOCTOR", "message": "model x: damaged"}]
    assert document["warnings"] == ["none"]
