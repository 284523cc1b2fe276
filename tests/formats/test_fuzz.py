"""A light slice of benchmarks/pose_fuzz.py: damaged scans and transforms give an answer or one sentence."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from equivox.errors import InputError
from equivox.formats.nifti import open_scan
from equivox.geometry.space import Volume
from equivox.tasks.pose.model import require_head_sized

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "pose_fuzz.py"


@pytest.fixture(scope="module")
def fuzz() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("pose_fuzz", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["pose_fuzz"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["pose_fuzz"]


def test_damaged_scans_are_read_or_refused_in_one_sentence(fuzz: ModuleType, tmp_path: Path) -> None:
    """Every frame of every file, and the check of its size that stands before the networks."""
    kinds = fuzz.write_scans(tmp_path, 150, 1)
    refusals: dict[str, Exception] = {}
    for name in kinds:
        try:
            scan = open_scan(tmp_path / name)
            for index in range(scan.frame_count):
                require_head_sized(scan.frame(index))
        except Exception as error:
            refusals[f"{name} ({kinds[name]})"] = error
    assert {name: repr(e) for name, e in refusals.items() if type(e).__module__ != "equivox.errors"} == {}
    sentences = [str(error) for error in refusals.values()]
    assert [text for text in sentences if "\n" in text or not text.endswith((".", "?"))] == []
    assert 30 < len(refusals) < 140


def test_damaged_transforms_are_read_or_refused_in_one_sentence(fuzz: ModuleType, tmp_path: Path) -> None:
    ends, wrong = fuzz.fuzz_transforms(tmp_path, 250, 1)
    assert wrong == []
    assert ends["read"] > 20
    assert ends["refused"] > 100


@pytest.mark.parametrize(("step", "sentence"), [(1e30, "more than any scan"), (1e-3, "too little to hold a head")])
def test_voxel_sizes_of_a_damaged_header_never_reach_the_networks(step: float, sentence: str) -> None:
    affine = torch.diag(torch.tensor([3.0, 3.0, step, 1.0], dtype=torch.float64))
    with pytest.raises(InputError, match=sentence):
        require_head_sized(Volume(torch.zeros(1, 20, 20, 20), affine, "scan.nii"))
    affine = torch.diag(torch.tensor([3.0, 3.0, 3.0, 1.0], dtype=torch.float64))
    require_head_sized(Volume(torch.zeros(1, 20, 20, 20), affine, "scan.nii"))
    affine[1, 3] = 1e30
    with pytest.raises(InputError, match="100 m from its origin"):
        require_head_sized(Volume(torch.zeros(1, 20, 20, 20), affine, "scan.nii"))
