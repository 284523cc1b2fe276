"""Laying a template over a head: it finds a generic pose, turns with the scan, and says when nothing fits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from equivox.errors import ConfigError, ModelFolderError
from equivox.geometry.rotations import Pose, geodesic_angle, random_rotations
from equivox.geometry.space import Volume, grid_points_mm
from equivox.nets.head_template import HeadTemplate, TemplatePoints
from equivox.tasks.pose.estimator import read_settings
from equivox.tasks.pose.register import RegisterConfig, Registration, contrast_field, register_head
from equivox.tasks.pose.template import make_template, posed_brain

CONFIG = RegisterConfig(grid="superfibonacci-288", sizes=(0.0,), shifted=24, refined=8)
NO_GUESS = torch.zeros(0, 3, 3)
SEMI_AXES_MM = torch.tensor([43.0, 50.0, 38.0], dtype=torch.float64)


def drawn_head(rotation: Tensor, shift_mm: Tensor | None = None, size: float = 1.0) -> tuple[Tensor, Tensor]:
    """A brain in a dark skull with two eyes and a dark base, evaluated at turned points: no resampling."""
    affine = torch.diag(torch.tensor([3.0, 3.0, 3.0, 1.0], dtype=torch.float64))
    affine[:3, 3] = -94.5
    points = grid_points_mm(affine, (64, 64, 64)) - (0.0 if shift_mm is None else shift_mm)
    points = points @ rotation.double() / size
    radius = (points / SEMI_AXES_MM).norm(dim=-1)
    image = torch.sigmoid((1 - radius) * 12) + 0.5 * torch.sigmoid((radius - 1.35) * 12)
    for place, level, width in (
        ((17.0, 40.0, -22.0), 1.2, 7.0), ((-17.0, 40.0, -22.0), 1.2, 7.0), ((0.0, 18.0, -26.0), -0.6, 12.0),
        ((0.0, -30.0, -18.0), -0.4, 9.0), ((0.0, 0.0, 30.0), -0.3, 8.0),
    ):  # fmt: skip
        distance = (points - torch.tensor(place, dtype=torch.float64)).square().sum(-1)
        image = image + level * torch.exp(-distance / (2 * width**2))
    return image.clamp_min(0.0).float()[None], torch.ones(1, 64, 64, 64)


def angle_deg(first: Tensor, second: Tensor) -> float:
    """Between two rotations."""
    return math.degrees(float(geodesic_angle(first.double(), second.double())))


@pytest.fixture(scope="module")
def template() -> HeadTemplate:
    """Of the drawn head itself, from two poses of one and another subject."""
    poses = random_rotations(2, generator=torch.Generator().manual_seed(3))
    return make_template([drawn_head(pose) for pose in poses], poses, [290.0, 290.0], ["a", "b"])


def registered(template: HeadTemplate, head: tuple[Tensor, Tensor], volume_ml: float = 290.0) -> Registration:
    """Without any guess."""
    return register_head(template, *head, volume_ml, NO_GUESS, CONFIG)


def test_a_generic_pose_is_found_with_shift_and_size(template: HeadTemplate) -> None:
    rotation = random_rotations(1, generator=torch.Generator().manual_seed(11))[0]
    shift = torch.tensor([6.0, -4.0, 5.0], dtype=torch.float64)
    found = registered(template, drawn_head(rotation, shift, size=1.1))
    assert angle_deg(found.rotation, rotation) < 2.0
    torch.testing.assert_close(found.shift_mm, shift, atol=1.0, rtol=0)
    assert found.log_size == pytest.approx(math.log(1.1), abs=0.03)
    assert found.correlation > 0.9
    assert found.lead > 0.08


def test_the_answer_turns_with_the_scan_and_a_template_of_noise_does_not_fit(template: HeadTemplate) -> None:
    first, turn = random_rotations(2, generator=torch.Generator().manual_seed(21))
    before = registered(template, drawn_head(first))
    head = drawn_head(turn @ first)
    after = registered(template, head)
    assert angle_deg(after.rotation, turn @ before.rotation) < 2.0
    noise = HeadTemplate()
    noise.contrast = torch.randn(noise.contrast.shape, generator=torch.Generator().manual_seed(1))
    lost = registered(noise, head)
    assert lost.correlation < 0.3
    assert lost.lead < 0.1


def test_what_lies_outside_the_field_of_view_does_not_count(template: HeadTemplate) -> None:
    rotation = random_rotations(1, generator=torch.Generator().manual_seed(31))[0]
    image, known = drawn_head(rotation)
    known[:, :, :, :22] = 0.0  # ends 29 mm below the centre
    found = registered(template, (image * known, known))
    assert angle_deg(found.rotation, rotation) < 4.0


def test_guesses_are_starts_and_a_wrong_one_does_no_harm(template: HeadTemplate) -> None:
    rotation, wrong = random_rotations(2, generator=torch.Generator().manual_seed(41))
    head = drawn_head(rotation)
    lone = RegisterConfig(grid="C1", sizes=(0.0,), shifted=8, refined=8)
    with torch.inference_mode():
        helped = register_head(template, *head, 290.0, rotation[None], lone)
    assert angle_deg(helped.rotation, rotation) < 2.0
    misled = register_head(template, *head, 290.0, wrong[None], CONFIG)
    assert angle_deg(misled.rotation, rotation) < 2.0


def test_every_subject_counts_once_and_the_mirror_image_joins() -> None:
    poses = random_rotations(3, generator=torch.Generator().manual_seed(51))
    heads = [drawn_head(pose, size=size) for pose, size in zip(poses, (1.0, 1.0, 1.15), strict=True)]
    once = make_template([heads[0], heads[2]], poses[[0, 2]], [290.0] * 2, ["a", "b"])
    twice = make_template([heads[0], heads[0], heads[2]], poses[[0, 0, 2]], [290.0] * 3, ["a", "a", "b"])
    torch.testing.assert_close(once.contrast, twice.contrast)
    torch.testing.assert_close(once.contrast, once.contrast.flip(0))
    plain = make_template([heads[2]], poses[[2]], [290.0], ["b"], mirror=False)
    sized = make_template([heads[2]], poses[[2]], [290.0 * 1.15**3], ["b"], mirror=False)
    reference = make_template([heads[0]], poses[[0]], [290.0], ["a"], mirror=False)
    inner = slice(12, 32)
    here, far = ((t.contrast - reference.contrast)[inner, inner, inner].abs().mean() for t in (sized, plain))
    assert here < 0.6 * far  # sizes are taken out


def test_the_correlation_is_one_where_the_template_was_taken(template: HeadTemplate) -> None:
    rotation = random_rotations(1, generator=torch.Generator().manual_seed(3))[0]
    field, half = contrast_field(*drawn_head(rotation), 290.0, CONFIG)
    turns = torch.stack([rotation, rotation @ random_rotations(1, generator=torch.Generator().manual_seed(5))[0]])
    still = (turns.float(), torch.zeros(2, 3), torch.zeros(2))
    whole = template(field, half, *still)
    assert whole[0] > 0.95
    assert whole[1] < 0.7
    torch.testing.assert_close(template(field, half, *still, points=template.points()), whole, atol=0, rtol=0)
    for points in (template.points(step=2), template.points(step=2).thinned(3)):
        torch.testing.assert_close(template(field, half, *still, points=points), whole, atol=0.06, rtol=0)
    assert template(0 * field, half, *still).tolist() == [0.0, 0.0]  # nothing known: no opinion


def test_a_search_makes_the_templates_points_once(template: HeadTemplate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pooling it and laying its grid anew for every one of the search's looks took a tenth of the whole search."""
    steps: list[int] = []
    make = HeadTemplate.points

    def counted(self: HeadTemplate, step: int = 1) -> TemplatePoints:
        steps.append(step)
        return make(self, step)

    monkeypatch.setattr(HeadTemplate, "points", counted)
    lone = RegisterConfig(grid="C1", sizes=(0.0,), shifted=2, refined=2, second_look=(-1.0, -1.0))
    register_head(template, *drawn_head(torch.eye(3, dtype=torch.float64)), 290.0, NO_GUESS, lone)
    assert sorted(steps) == [1, 2]


def test_points_of_the_ball_lie_where_the_templates_voxels_are() -> None:
    template = HeadTemplate(side=8, voxel_size_mm=3.0, radius_mm=12.0)
    template.contrast = torch.rand(8, 8, 8, generator=torch.Generator().manual_seed(2))
    for step, seen in ((1, template.contrast), (2, template.contrast.unfold(0, 2, 2).unfold(1, 2, 2).unfold(2, 2, 2))):
        points = template.points(step)
        index = (points.places_mm / (3.0 * step) + (8 / step - 1) / 2).round().long()
        wanted = seen[tuple(index)] if step == 1 else seen[tuple(index)].mean((-3, -2, -1))
        torch.testing.assert_close(points.contrast, wanted)
        assert float(points.places_mm.norm(dim=0).max()) < 12.0
        assert len(points.contrast) == len(index.unique(dim=1)[0])
        assert len(points.thinned(3).contrast) == math.ceil(len(points.contrast) / 3)


def test_impossible_templates_and_unknown_settings_are_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(ConfigError, match="cannot hold a ball of 80"):
        HeadTemplate(side=44, voxel_size_mm=3.0, radius_mm=80.0)
    where = tmp_path_factory.mktemp("model")
    settings = read_settings({"register": {"grid": "superfibonacci-288", "sizes": [0.0]}}, where=where)
    assert settings.register == RegisterConfig(grid="superfibonacci-288", sizes=(0.0,))
    with pytest.raises(ModelFolderError, match="unknown key 'girds'"):
        read_settings({"register": {"girds": 1}}, where=where)


def test_the_templates_brain_is_laid_into_a_scan_of_any_grid_and_outside_it_is_none() -> None:
    poses = random_rotations(2, generator=torch.Generator().manual_seed(61))
    heads = [drawn_head(pose) for pose in poses]
    affine = torch.diag(torch.tensor([3.0, 3.0, 3.0, 1.0], dtype=torch.float64))
    affine[:3, 3] = -94.5
    points = grid_points_mm(affine, (64, 64, 64))
    brains = [((points @ pose) / SEMI_AXES_MM).norm(dim=-1)[None].lt(1).float() for pose in poses]
    template = make_template(heads, poses, [290.0, 290.0], ["a", "b"], brains=brains)
    oblique = torch.eye(4, dtype=torch.float64)
    oblique[:3, :3] = random_rotations(1, generator=torch.Generator().manual_seed(7))[0] * torch.tensor([2.0, 3.0, 4.5])
    oblique[:3, 3] = -oblique[:3, :3] @ torch.tensor([35.0, 25.0, 14.0], dtype=torch.float64)
    scan = Volume(torch.zeros(1, 70, 50, 28), oblique, "scan")
    pose = Pose(poses[1], torch.tensor([4.0, -3.0, 2.0], dtype=torch.float64), source="head", target="world")
    seen = (grid_points_mm(oblique, scan.shape) - pose.translation_mm) @ poses[1] / 1.1
    truth = (seen / SEMI_AXES_MM).norm(dim=-1) < 1
    nothing = Volume(torch.zeros(1, 4, 4, 4), affine, "finder")
    found = Volume(truth.float()[None], oblique, "finder")
    mask, volume_ml = posed_brain(template, pose, 1.1, found, scan)
    inside = mask.data[0] > 0.5
    assert mask.shape == scan.shape
    assert 2 * float((inside & truth).sum()) / float(inside.sum() + truth.sum()) > 0.93
    assert volume_ml == pytest.approx(4 / 3 * math.pi * 43 * 50 * 38 * 1.1**3 / 1000, rel=0.1)
    smaller = posed_brain(template, pose, 1.1, nothing, scan)[1]
    assert 0 < smaller < volume_ml  # the finder has a say
    far = Pose(poses[1], torch.tensor([900.0, 0.0, 0.0], dtype=torch.float64), source="head", target="world")
    assert posed_brain(template, far, 1.1, nothing, scan)[1] == 0.0
