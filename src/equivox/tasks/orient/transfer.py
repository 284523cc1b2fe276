"""The contrast transfer of every particle, from its table or drawn for a simulation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import InputError
from equivox.formats.particles import Particles
from equivox.simulate.ctf import Microscope, ctf


@dataclass(frozen=True, slots=True, eq=False)
class Imaging:
    """What decides the contrast transfer function of each picture; positive defocus is underfocus."""

    defocus_u_angstrom: Float[Tensor, "picture"]
    defocus_v_angstrom: Float[Tensor, "picture"]
    defocus_angle_deg: Float[Tensor, "picture"]
    phase_shift_deg: Float[Tensor, "picture"]
    voltage_kv: Float[Tensor, "picture"]
    cs_mm: Float[Tensor, "picture"]
    amplitude_contrast: Float[Tensor, "picture"]

    def select(self, chosen: Tensor) -> Imaging:
        """Some of the pictures."""
        return Imaging(*(getattr(self, name)[chosen] for name in self.__slots__))


def imaging_of(particles: Particles) -> Imaging | None:
    """What a table says about the transfer; None if it says nothing.

    Raises
    ------
    InputError
        If it gives a defocus but not the voltage, the spherical aberration or the amplitude contrast, or a number of
        these is none.
    """
    if particles.defocus_u_angstrom is None:
        return None
    needed = {
        "voltage_kv": "rlnVoltage",
        "cs_mm": "rlnSphericalAberration",
        "amplitude_contrast": "rlnAmplitudeContrast",
    }
    for name, label in needed.items():
        if getattr(particles, name) is None:
            raise InputError(
                f"{particles.path} gives a defocus but no {name.replace('_', ' ')} (_{label}, in data_optics); "
                f"give the whole file, or pass --transfer none to leave the transfer alone."
            )
    nothing = np.zeros(particles.count)
    u = particles.defocus_u_angstrom
    columns = {
        "defocus_u_angstrom": u,
        "defocus_v_angstrom": u if particles.defocus_v_angstrom is None else particles.defocus_v_angstrom,
        "defocus_angle_deg": nothing if particles.defocus_angle_deg is None else particles.defocus_angle_deg,
        "phase_shift_deg": nothing if particles.phase_shift_deg is None else particles.phase_shift_deg,
        **{name: getattr(particles, name) for name in needed},
    }
    for name, column in columns.items():
        bad = np.flatnonzero(~np.isfinite(column))
        if bad.size:
            raise InputError(
                f"{particles.path}, particle {int(bad[0]) + 1}: {name.replace('_', ' ')} is {column[bad[0]]}; "
                f"a finite number is needed."
            )
    return Imaging(**{name: torch.from_numpy(np.asarray(column, dtype=np.float64)) for name, column in columns.items()})


def transfer_of(imaging: Imaging, side: int, pixel_size_angstrom: float) -> Float[Tensor, "picture y frequency"]:
    """Contrast transfer functions in rfft layout, float64; positive at low frequency: particles light on dark."""
    session = torch.stack([imaging.voltage_kv, imaging.cs_mm, imaging.amplitude_contrast], dim=1)
    kinds, place = torch.unique(session, dim=0, return_inverse=True)
    found = torch.empty(len(session), side, side // 2 + 1, dtype=torch.float64)
    for index, (voltage, cs, contrast) in enumerate(kinds.tolist()):
        rows = place == index
        found[rows] = ctf(
            (side, side), pixel_size_angstrom, Microscope(voltage, cs, contrast),
            defocus_u_angstrom=imaging.defocus_u_angstrom[rows], defocus_v_angstrom=imaging.defocus_v_angstrom[rows],
            defocus_angle_deg=imaging.defocus_angle_deg[rows], phase_shift_deg=imaging.phase_shift_deg[rows],
        )  # fmt: skip
    return found


def spread_image(transfer: Float[Tensor, "picture y frequency"], side: int) -> Float[Tensor, "picture y x"]:
    """What the microscope makes of a point in the middle: pixel ``side // 2``."""
    return torch.fft.fftshift(torch.fft.irfft2(transfer, s=(side, side)), dim=(-2, -1))
