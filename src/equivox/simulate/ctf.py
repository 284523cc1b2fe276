"""The contrast transfer function of an electron microscope, in the layout of ``torch.fft.rfft2``.

``CTF(s) = sin chi(s) exp(-B s²/4) scale`` with ``chi = pi lambda df(a) s² - pi/2 Cs lambda³ s⁴ + phase shift +
arctan(Q0 / sqrt(1 - Q0²))``: positive defocus is underfocus, and ``CTF(0) = +Q0``. It describes images in which the
protein is white; a micrograph as it is recorded, with dark protein, is minus the CTF applied to the projection.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import ConfigError

ANGSTROM_PER_MM = 1e7


@dataclass(frozen=True, slots=True)
class Microscope:
    """What all images of a session share: acceleration voltage, spherical aberration, amplitude contrast (0 to 1)."""

    voltage_kv: float = 300.0
    cs_mm: float = 2.7
    amplitude_contrast: float = 0.1

    def __post_init__(self) -> None:
        if not 1.0 <= self.voltage_kv <= 3000.0:
            raise ConfigError(f"The voltage is {self.voltage_kv:g} kV; microscopes have 60 to 1250 (give kV, not V).")
        if not 0.0 <= self.cs_mm <= 100.0:
            raise ConfigError(f"The spherical aberration is {self.cs_mm:g} mm; it is 0 to 10 mm.")
        if not 0.0 <= self.amplitude_contrast < 1.0:
            raise ConfigError(f"The amplitude contrast is {self.amplitude_contrast:g}; it is a share from 0 to 1.")


def wavelength_angstrom(voltage_kv: float) -> float:
    """Relativistic wavelength of the electrons.

    >>> round(wavelength_angstrom(300.0), 7), round(wavelength_angstrom(200.0), 7)
    (0.0196876, 0.0250795)
    """
    volts = 1e3 * voltage_kv
    return 12.2643247 / math.sqrt(volts * (1.0 + 0.978466e-6 * volts))


def ctf(
    shape: tuple[int, int],
    pixel_size_angstrom: float,
    microscope: Microscope,
    *,
    defocus_u_angstrom: Float[Tensor, "*batch"],
    defocus_v_angstrom: Float[Tensor, "*batch"] | None = None,
    defocus_angle_deg: Float[Tensor, "*batch"] | None = None,
    phase_shift_deg: Float[Tensor, "*batch"] | None = None,
    b_factor: float = 0.0,
    scale: float = 1.0,
) -> Float[Tensor, "*batch y half_x"]:
    """The function on the frequencies of ``rfft2`` of images ``[y, x]``.

    Parameters
    ----------
    shape
        Rows and columns of the images, odd ones too.
    pixel_size_angstrom
        Edge of their pixels.
    microscope
        Voltage, spherical aberration, amplitude contrast.
    defocus_u_angstrom, defocus_v_angstrom, defocus_angle_deg
        Defocus along the axis at the angle (from x towards y) and across it; without the second there is no
        astigmatism.
    phase_shift_deg
        Of a phase plate.
    b_factor
        Of the envelope [Å²].
    scale
        Overall factor.

    Returns
    -------
    Rows by ``fftfreq``, columns by ``rfftfreq``, in the precision of ``defocus_u_angstrom``.

    Examples
    --------
    >>> defocus = torch.tensor(15000.0, dtype=torch.float64)
    >>> round(float(ctf((64, 64), 8.0, Microscope(), defocus_u_angstrom=defocus)[0, 0]), 6)
    0.1
    """
    if not (math.isfinite(pixel_size_angstrom) and pixel_size_angstrom > 0):
        raise ConfigError(f"The pixel size is {pixel_size_angstrom} Å; give a positive number.")
    kind, device = defocus_u_angstrom.dtype, defocus_u_angstrom.device
    wave = wavelength_angstrom(microscope.voltage_kv)
    y = torch.fft.fftfreq(shape[0], pixel_size_angstrom, dtype=torch.float64, device=device)[:, None]
    x = torch.fft.rfftfreq(shape[1], pixel_size_angstrom, dtype=torch.float64, device=device)[None, :]
    square = x * x + y * y
    u = defocus_u_angstrom.double()[..., None, None]
    v = u if defocus_v_angstrom is None else defocus_v_angstrom.double()[..., None, None]
    turn = torch.zeros_like(u)
    if defocus_angle_deg is not None:
        turn = torch.deg2rad(defocus_angle_deg.double())[..., None, None]
    angle = torch.atan2(y, x)
    defocus = 0.5 * (u + v) + 0.5 * (u - v) * torch.cos(2.0 * (angle - turn))
    cs = microscope.cs_mm * ANGSTROM_PER_MM
    contrast = microscope.amplitude_contrast
    chi = math.pi * wave * defocus * square - 0.5 * math.pi * cs * wave**3 * square**2
    chi = chi + math.atan2(contrast, math.sqrt(1.0 - contrast**2))
    if phase_shift_deg is not None:
        chi = chi + torch.deg2rad(phase_shift_deg.double())[..., None, None]
    return (scale * torch.sin(chi) * torch.exp(-0.25 * b_factor * square)).to(kind)


def apply_transfer(
    images: Float[Tensor, "*batch y x"], transfer: Float[Tensor, "*some y half_x"]
) -> Float[Tensor, "*batch y x"]:
    """Multiply the images' Fourier transforms by a real function of frequency (a CTF, its sign, an envelope).

    The images are taken as periodic: pad them first where the function spreads an edge far
    (:func:`delocalisation_angstrom`).
    """
    size = (images.shape[-2], images.shape[-1])
    return torch.fft.irfft2(torch.fft.rfft2(images) * transfer, s=size)


def phase_flip(transfer: Float[Tensor, "*batch y half_x"]) -> Float[Tensor, "*batch y half_x"]:
    """Sign of a CTF, +1 at its zeros and at the zero frequency."""
    sign = torch.where(transfer < 0, -1.0, 1.0).to(transfer.dtype)
    sign[..., 0, 0] = 1.0
    return sign


def delocalisation_angstrom(defocus_angstrom: float, microscope: Microscope, *, resolution_angstrom: float) -> float:
    """How far the CTF displaces details of a resolution, ``|lambda df s - Cs lambda³ s³|``.

    >>> round(delocalisation_angstrom(20000.0, Microscope(), resolution_angstrom=4.0))
    95
    """
    wave, s = wavelength_angstrom(microscope.voltage_kv), 1.0 / resolution_angstrom
    return abs(wave * defocus_angstrom * s - microscope.cs_mm * ANGSTROM_PER_MM * wave**3 * s**3)
