"""A trained picker: from micrographs to picks with calibrated scores."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from equivox.errors import ConfigError, ModelFolderError
from equivox.geometry.euler_relion import relion_from_matrix
from equivox.tasks.pick.calibrate import Calibration
from equivox.tasks.pick.config import NETWORK, Contrast, PickInput, require_radius
from equivox.tasks.pick.contrast import Evidence, Polarity, decide_contrast, pooled_contrast
from equivox.tasks.pick.prepare import Prepared, prepare_micrograph
from equivox.tasks.pick.scoring import Candidates, find_candidates
from equivox.weights.folder import ModelFolder, find_model
from equivox.weights.opening import input_of, only_network, require_task

log = logging.getLogger(__name__)
EVIDENCE_SIDE_PX = 224
"""Side of the middle part, in working pixels, that the contrast is found out from."""


@dataclass(frozen=True, slots=True)
class Picks:
    """Picks on one micrograph, the surest first.

    Parameters
    ----------
    name
        The micrograph as given.
    file_size_px, pixel_size_angstrom
        Rows and columns of the file, and its pixel size.
    x_px, y_px
        Centres: 0-based pixel centres of the file.
    log_odds
        Calibrated log-odds that a pick is a particle.
    rot_deg, tilt_deg, psi_deg
        RELION's angles of the best rotation, in a frame of the model's own that all picks share; NaN without.
    pose_confidence
        Share of the evidence that lies near that rotation; NaN without.
    contrast
        ``dark`` or ``bright``: how particles stand against the ice.
    warnings
        Sentences.
    """

    name: str
    file_size_px: tuple[int, int]
    pixel_size_angstrom: float
    x_px: Float64[np.ndarray, " pick"]
    y_px: Float64[np.ndarray, " pick"]
    log_odds: Float64[np.ndarray, " pick"]
    rot_deg: Float64[np.ndarray, " pick"]
    tilt_deg: Float64[np.ndarray, " pick"]
    psi_deg: Float64[np.ndarray, " pick"]
    pose_confidence: Float64[np.ndarray, " pick"]
    contrast: str
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.x_px)

    @property
    def probability(self) -> Float64[np.ndarray, " pick"]:
        """Calibrated probability that a pick is a particle."""
        found: Float64[np.ndarray, " pick"] = 1.0 / (1.0 + np.exp(-self.log_odds.clip(-700.0, 700.0)))
        return found

    @property
    def has_poses(self) -> bool:
        """Whether the network knows rotations."""
        return len(self) > 0 and not bool(np.isnan(self.tilt_deg).any())

    def above(self, threshold: float) -> Picks:
        """Those of at least this probability."""
        keep = self.probability >= threshold
        return Picks(
            self.name, self.file_size_px, self.pixel_size_angstrom, self.x_px[keep], self.y_px[keep],
            self.log_odds[keep], self.rot_deg[keep], self.tilt_deg[keep], self.psi_deg[keep],
            self.pose_confidence[keep], self.contrast, self.warnings,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class PickOptions:
    """How a micrograph is picked.

    Parameters
    ----------
    radius_angstrom
        Of the particle; None: as the model was trained.
    pixel_size_angstrom
        Instead of what files say.
    contrast
        ``auto``, ``dark`` or ``bright``.
    edge_angstrom
        Nothing nearer to the edge.
    distance_angstrom
        No two picks nearer; None: one radius.
    """

    radius_angstrom: float | None = None
    pixel_size_angstrom: float | None = None
    contrast: Contrast = "auto"
    edge_angstrom: float = 0.0
    distance_angstrom: float | None = None

    def __post_init__(self) -> None:
        if self.radius_angstrom is not None:
            require_radius(self.radius_angstrom)
        if self.contrast not in ("auto", "dark", "bright"):
            raise ConfigError(f"--contrast is {self.contrast!r}; give auto, dark or bright.")
        for name, value in (("edge", self.edge_angstrom), ("distance", self.distance_angstrom)):
            if value is not None and not (math.isfinite(value) and value >= 0.0):
                raise ConfigError(f"--{name}-angstrom is {value:g}; give 0 Å or more.")


@dataclass(frozen=True, slots=True)
class PickModel:
    """A model of the task ``pick`` that is ready to be used.

    Parameters
    ----------
    folder
        Where it came from.
    network
        From normalised micrographs to scores, in evaluation mode.
    input
        Size of particles that it knows.
    calibration
        From its scores to log-odds.
    device
        Where it runs.
    """

    folder: ModelFolder
    network: nn.Module
    input: PickInput
    calibration: Calibration
    device: str

    @property
    def name(self) -> str:
        """Name in the model folder's configuration."""
        return self.folder.name

    @property
    def rotations(self) -> int:
        """Rotations of the network's grid; 0 without."""
        grid = getattr(self.network, "grid", None)
        return 0 if grid is None else len(grid)

    def predict(self, source: Path | str, options: PickOptions | None = None, *, mask: str | None = None) -> Picks:
        """All candidates of a micrograph, as `equivox pick predict` has them before its threshold.

        Parameters
        ----------
        source
            Micrograph: MRC, TIFF or PNG.
        options
            Radius, pixel size, contrast, distances.
        mask
            Image that is 0 where nothing shall be picked.

        Raises
        ------
        InputError
            If the file cannot be used.

        Examples
        --------
        >>> from equivox.tasks.load import load_model
        >>> from equivox.samples import cryoem_folder
        >>> micrograph = cryoem_folder() / "May08_04.36.57.mrc"
        >>> picks = load_model("particles").predict(micrograph, PickOptions(radius_angstrom=62.0))  # doctest: +SKIP
        """
        chosen = options or PickOptions()
        prepared = self.prepare(source, chosen, mask=mask)
        return self.pick(prepared, chosen, contrast=chosen.contrast, warnings=prepared.warnings)

    def prepare(self, source: Path | str, options: PickOptions, *, mask: str | None = None) -> Prepared:
        """The micrograph as the network sees it."""
        return prepare_micrograph(
            source,
            radius_angstrom=self.radius_angstrom(options),
            radius_px=self.input.radius_px,
            pixel_size_angstrom=options.pixel_size_angstrom,
            mask=mask,
        )

    def radius_angstrom(self, options: PickOptions) -> float:
        """The radius asked for, or that of the training."""
        return self.input.radius_angstrom if options.radius_angstrom is None else options.radius_angstrom

    def pick(
        self, prepared: Prepared, options: PickOptions, *, contrast: Contrast, warnings: tuple[str, ...] = ()
    ) -> Picks:
        """Candidates of a prepared micrograph in pixels of its file; ``"auto"`` finds the contrast out first."""
        note = ""
        found = None if contrast == "bright" else self._candidates(prepared, options, 1.0)
        if found is not None and contrast == "auto":
            evidence = self._evidence(found, prepared), self._middle(prepared, -1.0)
            if pooled_contrast([evidence]) is None:
                evidence = self._strength(found), self._strength(self._candidates(prepared, options, -1.0))
            contrast, note = decide_contrast([evidence], fallback=self.trained_contrast)
        if contrast == "bright" or found is None:
            found = self._candidates(prepared, options, -1.0)
        place = prepared.to_file(found.yx_px.double())
        angles = self._angles(found)
        return Picks(
            name=prepared.name,
            file_size_px=prepared.file_size_px,
            pixel_size_angstrom=prepared.pixel_size_angstrom,
            x_px=place[:, 1].numpy(),
            y_px=place[:, 0].numpy(),
            log_odds=self.calibration.log_odds(found.score.double()).numpy(),
            rot_deg=angles[:, 0].numpy(),
            tilt_deg=angles[:, 1].numpy(),
            psi_deg=angles[:, 2].numpy(),
            pose_confidence=found.confidence.double().numpy(),
            contrast=contrast,
            warnings=(*warnings, f"{prepared.name}: {note}") if note else warnings,
        )

    @property
    def trained_contrast(self) -> Polarity:
        """How particles stood against the ice in most sets of the training; dark where the folder does not say."""
        noted = self.folder.config.get("provenance", {}).get("contrast", [])
        bright = sum(one == "bright" for one in noted) if isinstance(noted, list) else 0
        return "bright" if bright and 2 * bright > len(noted) else "dark"

    def contrast_evidence(self, prepared: Prepared, *, whole: bool = False) -> Evidence:
        """How many particles the middle of a micrograph, or all of it, seems to hold if dark, and if bright."""
        if not whole:
            return self._middle(prepared, 1.0), self._middle(prepared, -1.0)
        options = PickOptions()
        return (
            self._strength(self._candidates(prepared, options, 1.0)),
            self._strength(self._candidates(prepared, options, -1.0)),
        )

    def _candidates(self, prepared: Prepared, options: PickOptions, sign: float) -> Candidates:
        """Of the whole micrograph times a sign."""
        radius = self.radius_angstrom(options)
        pixel = radius / self.input.radius_px
        distance = radius if options.distance_angstrom is None else options.distance_angstrom
        return find_candidates(
            self.network,
            sign * prepared.image,
            distance_px=distance / pixel,
            margin_px=options.edge_angstrom / pixel,
            keep=prepared.keep,
            device=self.device,
        )

    def _middle(self, prepared: Prepared, sign: float) -> float:
        """Evidence of the middle part alone."""
        (top, bottom), (left, right) = (_middle_span(size) for size in prepared.image.shape)
        part = sign * prepared.image[top:bottom, left:right]
        return self._strength(find_candidates(self.network, part, distance_px=self.input.radius_px, device=self.device))

    def _evidence(self, found: Candidates, prepared: Prepared) -> float:
        """The same from candidates of the whole micrograph."""
        spans = torch.tensor([_middle_span(size) for size in prepared.image.shape], dtype=found.yx_px.dtype)
        inside = ((found.yx_px >= spans[:, 0]) & (found.yx_px < spans[:, 1])).all(dim=1)
        return self._strength(found.select(inside))

    def _strength(self, found: Candidates) -> float:
        """About how many of them are particles; the doubtful ones, of which noise has many, hardly count."""
        return float((self.calibration.probability(found.score.double()) ** 2).sum())

    def _angles(self, found: Candidates) -> Float[Tensor, "peak 3"]:
        """rot, tilt, psi of the best rotations; NaN without."""
        if self.rotations == 0:
            return torch.full((len(found), 3), math.nan, dtype=torch.float64)
        network: Any = self.network
        return relion_from_matrix(network.grid.matrices[found.rotation])


def _middle_span(size: int) -> tuple[int, int]:
    """First and last pixel of the middle part of an axis."""
    start = max(0, (size - EVIDENCE_SIDE_PX) // 2)
    return start, min(size, start + EVIDENCE_SIDE_PX)


def load_pick_model(name_or_folder: str | Path, device: str = "cpu", *, grid: str | None = None) -> PickModel:
    """Load a picker by the name of its folder or by a path.

    Raises
    ------
    ModelFolderError
        If the model is missing, broken, or no model of this task.
    """
    return open_pick_model(find_model(name_or_folder), device, grid=grid)


def open_pick_model(folder: ModelFolder, device: str = "cpu", *, grid: str | None = None) -> PickModel:
    """Build the picker of a folder that was read.

    Parameters
    ----------
    grid
        Other rotations than those of the training, by name: more cost more time and give finer angles.

    Raises
    ------
    ModelFolderError
        If it is broken, or no model of this task.
    ConfigError
        If ``grid`` is unknown, or the network has no rotations.
    """
    require_task(folder, "pick")
    network: Any = only_network(folder, NETWORK)
    size = input_of(folder, PickInput.from_dict)
    try:
        calibration = Calibration.from_dict(folder.config.get("output", {}).get("calibration", {}))
    except ConfigError as error:
        raise ModelFolderError(f"{folder.path}: {error}") from error
    if grid is not None:
        if not hasattr(network, "set_grid"):
            raise ConfigError(f"--grid {grid}: the network of {folder.path} has no rotations; leave it out.")
        network.set_grid(grid)
    return PickModel(folder, network.to(device), size, calibration, device)
