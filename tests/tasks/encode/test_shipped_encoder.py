"""The shipped encoder on a real brain that took no part in its training: it turns with the head, whatever was done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from equivox.geometry.rotate import rotate_volume
from equivox.geometry.rotations import cube_group, random_rotations, rotation_angle
from equivox.nets.brain_code import align_codes, turn_code
from equivox.tasks.encode.model import EncodeModel, load_encode_model
from equivox.tasks.encode.photometric import Degradation
from equivox.tasks.encode.views import ScanViews
from equivox.weights.verify import verify_model

NAME = "brain-encoder-t1"


@pytest.fixture(scope="module")
def model() -> EncodeModel:
    """As users get it."""
    return load_encode_model(NAME)


def test_its_folder_is_whole_and_small(model: EncodeModel) -> None:
    assert [check for check in verify_model(model.folder.path) if not check.ok] == []
    assert (model.folder.path / "model.safetensors").stat().st_size <= 4_000_000
    assert "CC BY-SA" in (model.folder.path / "LICENSE").read_text()
    assert "IXI" in (model.folder.path / "README.md").read_text()
    certificate = model.folder.certificate()
    assert certificate["rotations_hold"]
    assert certificate["mirror_holds"]


def test_a_turned_and_degraded_brain_is_placed(model: EncodeModel, shared_path: Callable[[str], Path]) -> None:
    """Goals G5 and G5b on one brain of split=test: 0.3 degrees clean, 3 degrees with everything at once."""
    scan = shared_path("data/adult/ixi_brain_2mm/t1/IXI048-HH-1326_t1.nii.gz")
    views = ScanViews.open(scan)
    draw = torch.Generator().manual_seed(5)
    before = model.code([views.view()])
    spoiled = Degradation(
        gamma=0.75, bias=(0.12, -0.1, 0.08), noise=0.05, thickness_mm=4.0, thick_axis=1, centroid_mm=(1.5, -2.0, 1.0)
    )
    for degradation, limit_deg, limit_e in ((None, 1.0, 0.06), (spoiled, 4.0, 0.3)):
        turn = random_rotations(1, generator=draw)
        code = model.code([views.view(turn=turn[0], degradation=degradation, generator=draw)])
        found = align_codes(before, code)
        assert float(torch.rad2deg(rotation_angle(found.rotation[0].double() @ turn[0].mT))) < limit_deg
        wanted = turn_code(before, turn)
        assert float((code.polar - wanted.polar).norm() / wanted.polar.norm()) < limit_e
        assert float(found.confidence[0]) > 0.05


def test_symmetries_of_the_cube_hold_to_rounding_in_single_precision(
    model: EncodeModel, shared_path: Callable[[str], Path]
) -> None:
    """Goal G1 on a real brain: 1e-5, standardised invariants included.

    Uniform regions of a brain make the rounding of the first convolution add up, unless what is uniform is taken out
    before: 6e-6 for vectors and 1.3e-5 for invariants, where 3e-7 and 4e-6 are reached.
    """
    brain = ScanViews.open(shared_path("data/adult/ixi_brain_2mm/t1/IXI048-HH-1326_t1.nii.gz")).view()
    volume, mask = brain.volume[None], brain.mask[None]
    with torch.inference_mode():
        before = model.network(volume, mask)
        for element in cube_group(improper=True)[[8, 29]]:
            turn = element[None]
            found, wanted = (
                model.network(rotate_volume(volume, turn), rotate_volume(mask, turn)),
                turn_code(before, turn),
            )
            size = wanted.polar.abs().max()
            assert float((found.polar - wanted.polar).abs().max() / size) <= 2e-6
            assert float((found.axial - wanted.axial).abs().max() / size) <= 2e-6
            assert float((found.scalars - wanted.scalars).abs().max() / wanted.scalars.abs().max()) <= 1e-5
