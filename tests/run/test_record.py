from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch

from equivox import __version__
from equivox.run.record import RunRecord, file_sha256


def test_a_record_holds_what_is_needed_to_do_it_again(tmp_path: Path) -> None:
    scan = tmp_path / "a.nii"
    scan.write_bytes(b"voxels")
    record = RunRecord(
        ["equivox", "pose", "predict", "a.nii"],
        {"workers": 2, "model": "fetal-head-epi"},
        seed=7,
        device={"device": "cpu", "reason": "asked for"},
    )
    record.add_input(scan, frames=1)
    record.add_input(tmp_path / "b.nii")
    record.add_failure("b.nii", "EQV-INPUT", "b.nii does not exist; check the path.", frame=0)
    for _ in range(2):
        record.add_warning("millimetres are assumed", input="a.nii")
    record.add("model", {"name": "fetal-head-epi", "sha256": "0" * 64})
    with record.timed("predict"):
        pass
    record.write(tmp_path / "run.json", "some_failed")
    document = json.loads((tmp_path / "run.json").read_text())
    assert document["schema"] == "equivox.run/1"
    assert document["outcome"] == "some_failed"
    assert document["command"] == ["equivox", "pose", "predict", "a.nii"]
    assert document["config"] == {"workers": 2, "model": "fetal-head-epi"}
    assert document["seed"] == 7
    assert document["device"] == {"device": "cpu", "reason": "asked for"}
    assert document["versions"]["equivox"] == document["version"] == __version__
    assert document["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert document["inputs"] == [
        {"path": str(scan), "sha256": hashlib.sha256(b"voxels").hexdigest(), "frames": 1},
        {"path": str(tmp_path / "b.nii"), "sha256": None},
    ]
    assert document["failures"] == [
        {"input": "b.nii", "code": "EQV-INPUT", "reason": "b.nii does not exist; check the path.", "frame": 0}
    ]
    assert document["warnings"] == [{"input": "a.nii", "text": "millimetres are assumed"}]
    assert document["model"]["name"] == "fetal-head-epi"
    assert set(document["timings_s"]) == {"predict", "total"}
    assert document["started"] <= document["finished"]
    assert record.failure_count == 1


def test_a_record_of_an_interrupted_run_is_whole_too(tmp_path: Path) -> None:
    record = RunRecord(["equivox"], {})
    record.write(tmp_path / "run.json", "interrupted")
    assert json.loads((tmp_path / "run.json").read_text())["outcome"] == "interrupted"


def test_the_checksum_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(range(256)) * 5000)
    assert file_sha256(tmp_path / "x") == hashlib.sha256(bytes(range(256)) * 5000).hexdigest()
