"""Evidence for and against an answer, the calibrated read-out, and what the estimator makes of it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from equivox.errors import ConfigError, ModelFolderError
from equivox.geometry.rotations import random_rotations, rotation_about
from equivox.geometry.space import Volume, grid_points_mm
from equivox.tasks.pose.estimator import HeadEstimator, read_settings
from equivox.tasks.pose.evidence import FEATURES, CalibratedReadOut, axis_misfit_deg, gather_evidence
from equivox.tasks.pose.locate import Candidate
from equivox.tasks.pose.rotate import Answer
from equivox.weights.folder import find_model

READOUT = CalibratedReadOut(("roundness", "spread_deg"), (0.9, 10.0), (0.05, 5.0), (1.0, -2.0), 0.5, 0.6)


def candidate(turn: torch.Tensor) -> Candidate:
    """An ellipsoid as long as a brain along the axes of a head turned so."""
    affine = torch.diag(torch.tensor([4.0, 4.0, 4.0, 1.0], dtype=torch.float64))
    affine[:3, 3] = -78.0
    points = grid_points_mm(affine, (40, 40, 40)) @ turn
    inside = (points / torch.tensor([43.0, 50.0, 36.0])).norm(dim=-1) < 1
    return Candidate(torch.zeros(3).double(), 0.8, Volume(inside.float()[None], affine), 324.0)


def test_the_readout_is_the_logistic_it_says_and_clips_what_is_far_off() -> None:
    seen = dict.fromkeys(FEATURES, 0.0) | {"roundness": 0.95, "spread_deg": 5.0}
    assert READOUT.probability(seen) == pytest.approx(1 / (1 + math.exp(-3.5)))
    far, farther = ({**seen, "spread_deg": value} for value in (40.0, 400.0))
    assert READOUT.probability(far) == READOUT.probability(farther) == pytest.approx(1 / (1 + math.exp(6.5)))


def test_it_survives_json_and_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    stored = json.loads(json.dumps(READOUT.as_dict()))
    assert CalibratedReadOut.from_settings(stored) == READOUT
    assert read_settings({"object_readout": stored}, where=tmp_path).object_readout == READOUT
    with pytest.raises(ConfigError, match="unknown number 'beauty'"):
        replace(READOUT, names=("beauty", "spread_deg"))
    with pytest.raises(ModelFolderError, match="broken pose_readout"):
        read_settings({"pose_readout": {**stored, "names": ["roundness"]}}, where=tmp_path)
    with pytest.raises(ModelFolderError, match="expected"):
        read_settings({"pose_readout": {"names": ["roundness"]}}, where=tmp_path)


def test_a_mask_agrees_with_the_pose_that_made_it_and_not_with_another(generator: torch.Generator) -> None:
    turn = random_rotations(1, generator=generator)[0]
    made = candidate(turn)
    assert axis_misfit_deg(made, turn) < 5
    assert axis_misfit_deg(made, turn @ rotation_about("y", 180.0)) < 5  # an ellipsoid knows no senses
    assert axis_misfit_deg(made, turn @ rotation_about("x", 40.0)) == pytest.approx(40, abs=5)


def test_skull_around_a_brain_is_seen_and_evidence_turns_with_the_head(generator: torch.Generator) -> None:
    turn = random_rotations(1, generator=generator)[0]
    made = candidate(turn)
    affine = torch.diag(torch.tensor([3.0, 3.0, 3.0, 1.0], dtype=torch.float64))
    affine[:3, 3] = -94.5
    shape = ((grid_points_mm(affine, (64, 64, 64)) @ turn) / torch.tensor([43.0, 50.0, 36.0])).norm(dim=-1)
    brain = torch.where(shape < 1.03, 100.0, torch.where(shape < 1.4, 30.0, 70.0)).float()[None]
    answer = Answer(turn, (1.0, 1.0, 1.0), 3.0, 5.0)
    known = torch.ones_like(brain)
    evidence = gather_evidence(made, brain, known, answer, in_field_of_view=1.0)
    assert set(evidence) == set(FEATURES)
    assert evidence["shell_level"] == pytest.approx(0.3, abs=0.05)
    flat = gather_evidence(made, 0 * brain + 50, known, answer, in_field_of_view=1.0)
    assert flat["shell_level"] == pytest.approx(1.0)
    unseen = gather_evidence(made, brain, 0 * known, answer, in_field_of_view=0.0)
    assert (unseen["shell_level"], unseen["inside_variation"]) == (1.0, 0.0)


def test_the_shipped_model_refuses_what_is_no_head() -> None:
    """Smooth noise, in which the finder alone sees a brain."""
    estimator = HeadEstimator.from_folder(find_model("fetal-head-epi"))
    assert estimator.settings.object_readout is not None
    assert estimator.settings.pose_readout is not None
    spacing = torch.diag(torch.tensor([3.0, 3.0, 3.0, 1.0], dtype=torch.float64))
    noise = torch.rand(1, 1, 70, 70, 60, generator=torch.Generator().manual_seed(4))
    volume = Volume(torch.nn.functional.avg_pool3d(noise, 11, stride=1, padding=5)[0] * 300, spacing)
    with torch.inference_mode():
        answer = estimator.estimate(volume)
        lenient = replace(estimator.settings.object_readout, least=0.0)
        estimator.settings = replace(estimator.settings, object_readout=lenient)
        before = estimator.estimate(volume)
    assert answer.status == "no_object"
    assert "probability 0.0" in answer.reason
    assert before.status in ("ok", "low_confidence")
