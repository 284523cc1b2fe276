"""One shape file to one field: read, place on the grid, fill, write."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from equivox import __version__
from equivox.errors import EquivoxError, GeometryError, InputError, OutputError
from equivox.formats.archives import read_arrays
from equivox.formats.atomic import atomic_path, write_json
from equivox.formats.environments import ELEMENTS
from equivox.formats.meshes import Mesh, read_mesh
from equivox.formats.nifti import write_volume
from equivox.formats.points import read_points
from equivox.formats.proteins import Structure, read_structure
from equivox.formats.scans import ScanInput
from equivox.formats.shape_files import Kind, kind_of
from equivox.geometry.density import PADDING, gaussian_density
from equivox.geometry.space import Volume
from equivox.geometry.voxelize import fit_to_radius, outside_share, voxelize_meshes
from equivox.run.record import file_sha256

Mode = Literal["surface", "occupancy", "points"]
STRUCTURE_SPACING = 2.0
"""Edge of a voxel for protein structures [Å], as in the published CATH experiment."""
MARGIN_VOXELS = 1.0
"""Free voxels between a fitted object and the border of the grid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VoxelizeConfig:
    """What is made of each file.

    ``spacing`` None scales meshes and points to fill the grid and takes 2 Å for structures; a number is the edge of a
    voxel in the file's own unit, and nothing is scaled. ``mode`` None fills meshes and blurs points. ``sigma_voxels``
    is the width of a point's Gaussian. ``atoms`` chooses what of a structure is shown: C-alpha atoms in one channel,
    or all heavy atoms in the channels C, N, O and S.
    """

    side: int = 32
    spacing: float | None = None
    mode: Mode | None = None
    supersample: int = 2
    sigma_voxels: float = 0.5
    atoms: Literal["ca", "elements"] = "ca"
    format: Literal["npz", "nii"] = "npz"

    def as_dict(self) -> dict[str, object]:
        """For the run record."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class VoxelizeJob:
    """One input, where its field goes, and how."""

    entry: ScanInput
    out: Path
    config: VoxelizeConfig

    @property
    def target(self) -> Path:
        """The file of the field."""
        return self.out / f"{self.entry.stem}.{'npz' if self.config.format == 'npz' else 'nii.gz'}"

    @property
    def sidecar(self) -> Path:
        """The facts about the field, beside it."""
        return self.out / f"{self.entry.stem}.json"

    @property
    def traces(self) -> tuple[Path, ...]:
        """Both."""
        return self.target, self.sidecar


@dataclass(frozen=True, slots=True)
class Voxelized:
    """What was made of one file: all JSON values, kept beside the field as ``STEM.json``.

    A point x of the file lies at ``(x - centre) * scale`` in the grid, whose voxel k has its centre at
    ``(k - (side - 1) / 2) * spacing``. ``outside`` is the share of the points that the grid cuts off, ``filled`` the
    share of voxels that are not 0.
    """

    input: str
    input_sha256: str
    output: str
    output_sha256: str
    kind: Kind
    mode: Mode
    channels: tuple[str, ...]
    side: int
    spacing: float
    centre: tuple[float, float, float]
    scale: float
    filled: float
    outside: float
    warnings: tuple[str, ...]
    settings: str


def voxelize_file(device: torch.device, job: VoxelizeJob) -> Voxelized:
    """Read one file, fill its grid and write the field and its facts.

    Raises
    ------
    InputError
        If the file cannot be read or placed, its kind does not go with the mode, or nothing of it is on the grid.
    OutputError
        If the field cannot be written.
    """
    if job.entry.problem:
        raise InputError(job.entry.problem)
    path, config = job.entry.path, job.config
    kind = kind_of(path)
    mode: Mode = config.mode or ("occupancy" if kind == "mesh" else "points")
    if kind != "mesh" and mode != "points":
        raise InputError(f"{path} holds {_described(kind)} and no surface, so --mode {mode} has nothing to fill.")
    content, warnings = _read(path, kind)
    try:
        field, facts, channels = _field(content, kind, mode, config, device)
    except GeometryError as error:
        raise InputError(f"{path}: {error}.") from error
    if facts["outside"] > 0:
        advice = "leave --spacing out" if kind != "structure" else "take a larger --side or --spacing"
        warnings.append(
            f"{path}: the grid of {config.side} voxels of {facts['spacing']:g} is too small; {facts['outside']:.0%} of "
            f"its points are cut off; {advice}."
        )
    if not float(field.abs().max()) > 0:
        thin = "it is cut off whole" if facts["outside"] >= 1 else "it is thinner than a voxel; try --mode surface"
        raise InputError(f"{path}: no voxel is filled, since {thin} or a larger --side.")
    _write(job, field, facts, channels)
    result = Voxelized(
        job.entry.name, file_sha256(path), job.target.name, file_sha256(job.target), kind, mode, channels, config.side,
        **facts, filled=float((field != 0).double().mean()), warnings=tuple(warnings), settings=settings_digest(config),
    )  # fmt: skip
    write_json(job.sidecar, asdict(result))
    return result


def settings_digest(config: VoxelizeConfig) -> str:
    """What decides a field besides its input: settings and version."""
    text = json.dumps({**config.as_dict(), "version": __version__}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def earlier_result(job: VoxelizeJob) -> Voxelized | None:
    """An earlier whole result of the same file under the same settings, or None."""
    try:
        facts = json.loads(job.sidecar.read_text(encoding="utf-8"))
        for name in ("channels", "centre", "warnings"):
            facts[name] = tuple(facts[name])
        result = Voxelized(**facts)
        same = (
            result.settings == settings_digest(job.config)
            and result.input_sha256 == file_sha256(job.entry.path)
            and result.output_sha256 == file_sha256(job.target)
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return result if same and not job.entry.problem else None


def read_field(path: Path | str) -> Float[Tensor, "channel x y z"]:
    """Read the field of a ``.npz`` that this command wrote.

    Raises
    ------
    InputError
        If the file is missing, broken or of another kind.
    """
    arrays = read_arrays(path, {"field": 4, "spacing": 0}, what="a field of equivox shapes voxelize")
    return torch.from_numpy(arrays["field"])


def _described(kind: Kind) -> str:
    return {"mesh": "a mesh", "points": "points", "structure": "a protein structure"}[kind]


def _read(path: Path, kind: Kind) -> tuple[Mesh | Structure | Tensor, list[str]]:
    if kind == "mesh":
        return read_mesh(path), []
    if kind == "points":
        return read_points(path).positions, []
    structure = read_structure(path)
    return structure, list(structure.warnings)


def _field(
    content: Mesh | Structure | Tensor, kind: Kind, mode: Mode, config: VoxelizeConfig, device: torch.device
) -> tuple[Float[Tensor, "channel x y z"], dict[str, Any], tuple[str, ...]]:
    """The field, where it lies, and what its channels are."""
    if isinstance(content, Structure):
        points, channel, channels = _atoms(content, config)
        centre, scale = points.mean(dim=0), 1.0
        spacing = config.spacing or STRUCTURE_SPACING
    else:
        points = content.used() if isinstance(content, Mesh) else content
        spacing = config.spacing or 1.0
        centre, scale = fit_to_radius(points, max(config.side / 2 - MARGIN_VOXELS, 0.5))
        scale = 1.0 if config.spacing else scale
        channel, channels = torch.zeros(len(points), dtype=torch.int64), (mode,)
    placed = ((points - centre) * scale).to(device, torch.float32)
    if isinstance(content, Mesh) and mode != "points":
        vertices = ((content.vertices - centre) * scale).to(device, torch.float32)
        field = voxelize_meshes(
            [vertices], [content.faces.to(device)], side=config.side, spacing=spacing,
            mode="surface" if mode == "surface" else "occupancy", supersample=config.supersample,
        )  # fmt: skip
    else:
        field = gaussian_density(
            placed[None], channel.to(device)[None], channels=len(channels), side=config.side, spacing=spacing,
            sigma=config.sigma_voxels * spacing,
        )  # fmt: skip
    facts = {
        "spacing": spacing,
        "centre": tuple(float(value) for value in centre),
        "scale": float(scale),
        "outside": outside_share(placed, side=config.side, spacing=spacing),
    }
    return field[0].cpu(), facts, channels


def _atoms(
    structure: Structure, config: VoxelizeConfig
) -> tuple[Float[Tensor, "atom 3"], Int[Tensor, " atom"], tuple[str, ...]]:
    """Positions and channels of the atoms that are shown."""
    if config.atoms == "ca":
        traces = torch.cat([chain.trace().positions for chain in structure.chains])
        return traces, torch.zeros(len(traces), dtype=torch.int64), ("CA",)
    index = {**{element: k for k, element in enumerate(ELEMENTS)}, "SE": ELEMENTS.index("S")}
    channel = torch.tensor([index.get(element, PADDING) for chain in structure.chains for element in chain.elements])
    positions = torch.cat([chain.positions for chain in structure.chains])
    return positions[channel != PADDING], channel[channel != PADDING], ELEMENTS


def _write(
    job: VoxelizeJob, field: Float[Tensor, "channel x y z"], facts: dict[str, Any], channels: tuple[str, ...]
) -> None:
    if job.config.format == "npz":
        with atomic_path(job.target) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file, field=field.numpy(), spacing=facts["spacing"], centre=facts["centre"], scale=facts["scale"],
                channels=np.array(channels),
            )  # fmt: skip
        return
    step = facts["spacing"] / facts["scale"]
    affine = torch.diag(torch.tensor([step, step, step, 1.0], dtype=torch.float64))
    affine[:3, 3] = torch.tensor(facts["centre"], dtype=torch.float64) - step * (job.config.side - 1) / 2
    try:
        write_volume(job.target, Volume(field, affine, name=job.target.name))
    except EquivoxError:
        raise
    except (OSError, ValueError) as error:
        raise OutputError(f"{job.target} cannot be written ({error}).") from error
