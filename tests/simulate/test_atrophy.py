from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from equivox.errors import InputError
from equivox.formats.nifti import open_scan
from equivox.simulate.atrophy import SEVERITIES, STRUCTURES, deform_brain, signed_distance_mm

CODES = {name: (number,) for number, name in enumerate(STRUCTURES, start=1)}
STEP = (3.0, 3.0, 3.0)


@pytest.fixture(scope="module")
def brain() -> tuple[torch.Tensor, torch.Tensor]:
    """A round brain in shells: CSF, cortex, white matter, two ventricles, two hippocampi; 3 mm."""
    x, y, z = np.meshgrid(*[(np.arange(52) - 25.5) * 3.0] * 3, indexing="ij")
    radius = np.sqrt(x**2 + y**2 + z**2)
    labels = np.zeros((52, 52, 52), dtype=np.int64)
    for limit, value in ((66, 1), (60, 3), (52, 4)):
        labels[radius < limit] = value
    for side in (-1, 1):
        labels[(x - side * 12) ** 2 / 8**2 + y**2 / 28**2 + (z - 8) ** 2 / 10**2 < 1] = 2
        labels[(x - side * 28) ** 2 / 7**2 + (y + 8) ** 2 / 18**2 + (z + 16) ** 2 / 7**2 < 1] = 6
    labels[(radius < 52) & (z < -38)] = 10
    grey = np.array([0, 20, 15, 90, 140, 110, 95, 95, 90, 140, 120], dtype=np.float32)
    return torch.from_numpy(grey[labels]), torch.from_numpy(labels)


def test_severities_widen_ventricles_and_shrink_hippocampi_in_order(brain: tuple[torch.Tensor, torch.Tensor]) -> None:
    made = [deform_brain(*brain, CODES, STEP, amounts_mm=amounts) for amounts in SEVERITIES]
    wider = [one.volume_change["ventricles"] for one in made]
    smaller = [one.volume_change["hippocampus"] for one in made]
    assert wider == sorted(wider)
    assert smaller == sorted(smaller, reverse=True)
    assert wider[0] == 0.0 == smaller[0]
    assert wider[4] > 0.3
    assert smaller[4] < -0.1
    for one in made:
        assert one.smallest_jacobian > 0.1  # nothing folds
        assert float(((one.labels > 0) != (brain[1] > 0)).double().mean()) < 1e-4  # the outline stays
        assert abs(one.volume_change["brainstem"]) < 0.25  # at the cut: it borders on the shell


def test_severity_0_without_a_shift_is_the_scan_itself(brain: tuple[torch.Tensor, torch.Tensor]) -> None:
    made = deform_brain(*brain, CODES, STEP, amounts_mm=SEVERITIES[0])
    assert torch.equal(made.image, brain[0])
    assert torch.equal(made.labels, brain[1])
    assert made.smallest_jacobian == 1.0


def test_a_shift_moves_everything_and_changes_no_volume(brain: tuple[torch.Tensor, torch.Tensor]) -> None:
    made = deform_brain(*brain, CODES, STEP, amounts_mm=SEVERITIES[0], shift_voxels=(1.0, 0.0, 0.0))
    assert torch.equal(made.image[:-1], brain[0][1:])
    assert max(abs(change) for change in made.volume_change.values()) < 1e-9


def test_mirrored_brains_deform_as_mirrors(brain: tuple[torch.Tensor, torch.Tensor]) -> None:
    made = deform_brain(*brain, CODES, STEP, amounts_mm=SEVERITIES[2])
    mirror = deform_brain(brain[0].flip(0), brain[1].flip(0), CODES, STEP, amounts_mm=SEVERITIES[2])
    assert torch.allclose(mirror.image.flip(0), made.image, atol=1e-3)


def test_distances_count_from_the_surface() -> None:
    inside = np.zeros((9, 3, 3), dtype=bool)
    inside[3:6] = True
    distance = signed_distance_mm(inside, (2.0, 2.0, 2.0))[:, 1, 1]
    assert distance.tolist() == [5, 3, 1, -1, -3, -1, 1, 3, 5]


def test_a_missing_structure_is_named(brain: tuple[torch.Tensor, torch.Tensor]) -> None:
    with pytest.raises(InputError, match=r"holds no hippocampus \(labels \[17, 53\]\)"):
        deform_brain(*brain, {**CODES, "hippocampus": (17, 53)}, STEP, amounts_mm=SEVERITIES[1])


def test_a_real_brain_changes_as_published(shared_path: Callable[[str], Path]) -> None:
    """data_mri.md 6.4: severity 2 has ventricles +33 (SD 4) %, hippocampus -9.9 (0.7) %, Jacobian 0.52, 1.1 mm."""
    root = shared_path("data/adult/ixi_brain_2mm")
    image = open_scan(root / "t1" / "IXI012-HH-1211_t1.nii.gz").frame().data[0]
    labels = open_scan(root / "seg" / "IXI012-HH-1211_seg.nii.gz").labels()
    made = deform_brain(image, labels, CODES, (2.0, 2.0, 2.0), amounts_mm=SEVERITIES[2])
    assert made.volume_change["ventricles"] == pytest.approx(0.33, abs=0.08)
    assert made.volume_change["hippocampus"] == pytest.approx(-0.099, abs=0.02)
    assert made.volume_change["cerebral_wm"] == pytest.approx(-0.035, abs=0.01)
    assert made.smallest_jacobian == pytest.approx(0.52, abs=0.04)
    assert made.largest_displacement_mm == pytest.approx(1.1, abs=0.1)
