"""The contrast transfer function against numbers of an independent computation, and its uses."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from equivox.errors import ConfigError
from equivox.simulate.ctf import (
    Microscope,
    apply_transfer,
    ctf,
    delocalisation_angstrom,
    phase_flip,
    wavelength_angstrom,
)

FOLDER = Path(__file__).parents[1] / "fixtures" / "projection2d"
CASES = json.loads((FOLDER / "ctf.json").read_text())


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("index", range(len(CASES)))
def test_images_are_the_reference(index: int) -> None:
    case = CASES[index]
    expected = torch.from_numpy(np.load(FOLDER / "ctf.npz")[f"ctf{index}"])
    scope = Microscope(case["kv"], case["cs"], case["q0"])
    assert wavelength_angstrom(case["kv"]) == pytest.approx(case["lambda_A"], rel=1e-12)
    for kind, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        found = ctf(
            (case["ny"], case["nx"]), case["apix"], scope, defocus_u_angstrom=number(case["dfu"]).to(kind),
            defocus_v_angstrom=number(case["dfv"]).to(kind), defocus_angle_deg=number(case["ang"]).to(kind),
            phase_shift_deg=number(case.get("ps", 0.0)).to(kind), b_factor=case.get("bf", 0.0),
            scale=case.get("scale", 1.0),
        )  # fmt: skip
        assert found.dtype == kind
        assert_close(found, expected.to(kind), atol=tolerance, rtol=0)


def test_batches_are_single_images() -> None:
    u, v, angle = number([1e4, 2e4]), number([9e3, 2.1e4]), number([10.0, -80.0])
    both = ctf((20, 23), 2.0, Microscope(), defocus_u_angstrom=u, defocus_v_angstrom=v, defocus_angle_deg=angle)
    one = ctf((20, 23), 2.0, Microscope(), defocus_u_angstrom=u[1], defocus_v_angstrom=v[1], defocus_angle_deg=angle[1])
    assert_close(both[1], one, atol=1e-15, rtol=0)


@given(angle=st.floats(-180, 180))
def test_astigmatism_turns_with_its_axis_and_half_a_turn_is_none(angle: float) -> None:
    u, v = number(2e4), number(1.6e4)
    scope = Microscope()
    kw = {"defocus_u_angstrom": u, "defocus_v_angstrom": v}
    first = ctf((32, 32), 3.0, scope, defocus_angle_deg=number(angle), **kw)
    assert_close(ctf((32, 32), 3.0, scope, defocus_angle_deg=number(angle + 180), **kw), first, atol=1e-9, rtol=0)
    across = number(angle + 90)
    exchanged = ctf((32, 32), 3.0, scope, defocus_u_angstrom=v, defocus_v_angstrom=u, defocus_angle_deg=across)
    assert_close(exchanged, first, atol=1e-9, rtol=0)


def test_more_underfocus_moves_the_first_zero_inwards_and_low_frequencies_are_positive() -> None:
    zeros = []
    for defocus in (1e4, 2e4, 3e4):
        row = ctf((256, 256), 1.5, Microscope(), defocus_u_angstrom=number(defocus))[0]
        assert float(row[0]) == pytest.approx(0.1)
        zeros.append(int((row < 0).nonzero()[0]))
    assert zeros == sorted(zeros, reverse=True)


def test_phase_flipping_undoes_the_signs() -> None:
    draw = torch.Generator().manual_seed(0)
    image = torch.randn(1, 33, 40, generator=draw, dtype=torch.float64)
    transfer = ctf((33, 40), 3.0, Microscope(), defocus_u_angstrom=number([15000.0]))
    flipped = apply_transfer(apply_transfer(image, transfer), phase_flip(transfer))
    assert_close(flipped, apply_transfer(image, transfer.abs()), atol=1e-12, rtol=0)
    assert set(phase_flip(transfer).unique().tolist()) == {-1.0, 1.0}
    assert float(phase_flip(-transfer)[0, 0, 0]) == 1.0


def test_details_are_displaced_as_far_as_the_phase_has_slope() -> None:
    scope, defocus, resolution = Microscope(), 22000.0, 6.0
    wave = wavelength_angstrom(300.0)

    def chi(s: float) -> float:
        return math.pi * wave * defocus * s**2 - 0.5 * math.pi * 2.7e7 * wave**3 * s**4

    s, step = 1 / resolution, 1e-6
    slope = (chi(s + step) - chi(s - step)) / (2 * step) / (2 * math.pi)
    assert delocalisation_angstrom(defocus, scope, resolution_angstrom=resolution) == pytest.approx(slope, rel=1e-4)


@pytest.mark.parametrize("options", [{"voltage_kv": 300000.0}, {"amplitude_contrast": 10.0}, {"cs_mm": -1.0}])
def test_numbers_in_other_units_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Microscope(**options)
