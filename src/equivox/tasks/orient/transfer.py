"""The contrast transfer of every particle, from its table or drawn for a simulation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import InputError
from equivox.formats.particles import Particles


@dataclass(frozen=True, slots=True, eq=False)
class Microscope:
    """What decides the contrast transfer function of each picture; positive defocus is underfocus."""

    defocus_u_angstrom: Float[Tensor, "picture"]
    defocus_v_angstrom: Float[Tensor, "picture"]
    defocus_angle_deg: Float[Tensor, "picture"]
    phase_shift_deg: Float[Tensor, "picture"]
    voltage_kv: Float[Tensor, "picture"]
    cs_mm: Float[Tensor, "picture"]
    amplitude_contrast: Float[Tensor, "picture"]

    def select(self, chosen: Tensor) -> Microscope:
        """Some of the pictures."""
        return Microscope(*(getattr(self, name)[chosen] for name in self.__slots__))


def microscope_of(particles: Particles) -> Microscope | None:
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
    return Microscope(
        **{name: torch.from_numpy(np.asarray(column, dtype=np.float64)) for name, column in columns.items()}
    )


def transfer_of(microscope: Microscope, side: int, pixel_size_angstrom: float) -> Float[Tensor, "picture y frequency"]:
    """Contrast transfer functions in rfft layout, float64; positive at low frequency: particles light on dark.

    ``CTF = sin(pi lambda df s² - pi/2 Cs lambda³ s⁴ + phase + arctan(Q / sqrt(1 - Q²)))``, all of a portion at once.
    """
    fy = torch.fft.fftfreq(side, pixel_size_angstrom, dtype=torch.float64)[:, None]
    fx = torch.fft.rfftfreq(side, pixel_size_angstrom, dtype=torch.float64)[None]
    squared, angle = fx.square() + fy.square(), torch.atan2(fy.expand(-1, fx.shape[1]), fx.expand(fy.shape[0], -1))

    def column(values: Tensor) -> Tensor:
        return values.double()[:, None, None]

    volts = column(microscope.voltage_kv) * 1e3
    wavelength = 12.2643247 / torch.sqrt(volts * (1.0 + 0.978466e-6 * volts))
    u, v = column(microscope.defocus_u_angstrom), column(microscope.defocus_v_angstrom)
    direction = torch.deg2rad(column(microscope.defocus_angle_deg))
    defocus = 0.5 * (u + v) + 0.5 * (u - v) * torch.cos(2.0 * (angle - direction))
    share = column(microscope.amplitude_contrast)
    phase = (
        math.pi * wavelength * defocus * squared
        - 0.5 * math.pi * column(microscope.cs_mm) * 1e7 * wavelength**3 * squared**2
        + torch.deg2rad(column(microscope.phase_shift_deg))
        + torch.atan2(share, torch.sqrt(1.0 - share.square()))
    )
    return torch.sin(phase)


def spread_image(transfer: Float[Tensor, "picture y frequency"], side: int) -> Float[Tensor, "picture y x"]:
    """What the microscope makes of a point in the middle: pixel ``side // 2``."""
    return torch.fft.fftshift(torch.fft.irfft2(transfer, s=(side, side)), dim=(-2, -1))
