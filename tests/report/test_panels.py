from __future__ import annotations

import gc
import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from equivox.geometry.rotations import Pose, random_rotations, rotation_about
from equivox.geometry.space import Volume
from equivox.report.panels import AXIS_COLORS, PICTURE_PIXELS, head_panels, overview_panels, scan_panels

MIDDLE = PICTURE_PIXELS / 2


def volume_with_spot(point_mm: tuple[float, float, float], affine: torch.Tensor | None = None) -> Volume:
    """A dim cube of 2 mm voxels about the origin with one bright ball of 8 mm."""
    if affine is None:
        affine = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64))
        affine[:3, 3] = -79.0
    empty = Volume(torch.full((1, 80, 80, 80), 10.0), affine)
    index = torch.stack(torch.meshgrid(*[torch.arange(80.0, dtype=torch.float64)] * 3, indexing="ij"), -1)
    distance = (empty.world_from_voxel(index) - torch.tensor(point_mm, dtype=torch.float64)).norm(dim=-1)
    return Volume(torch.where(distance < 8.0, 100.0, 10.0)[None].float(), affine)


def pixels(webp: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(webp)).convert("RGB"), dtype=float)


def spot(picture: np.ndarray) -> tuple[float, float]:
    """Where the white ball is, right and up from the middle [pixels]."""
    white = (picture.min(axis=2) > 200) & (np.ptp(picture, axis=2) < 12)
    white[:45] = white[-60:] = False  # letters and scale bar lie at the edges
    white[:, :45] = white[:, -45:] = False
    rows, columns = np.nonzero(white)
    return float(columns.mean() - MIDDLE), float(MIDDLE - rows.mean())


def identity_at(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Pose:
    return Pose(torch.eye(3, dtype=torch.float64), torch.tensor([x, y, z], dtype=torch.float64), "head", "world")


@pytest.mark.parametrize(
    ("panel", "right", "up"),
    [(0, (30.0, 0, 0), (0, 30.0, 0)), (2, (30.0, 0, 0), (0, 0, 30.0)), (3, (0, 30.0, 0), (0, 0, 30.0))],
)
def test_right_front_and_top_are_where_the_letters_say(
    panel: int, right: tuple[float, float, float], up: tuple[float, float, float]
) -> None:
    x, y = spot(pixels(head_panels(volume_with_spot(right), identity_at())[panel].webp))
    assert x == pytest.approx(30 / 150 * PICTURE_PIXELS, abs=4)
    assert abs(y) < 4
    x, y = spot(pixels(head_panels(volume_with_spot(up), identity_at())[panel].webp))
    assert y == pytest.approx(30 / 150 * PICTURE_PIXELS, abs=4)
    assert abs(x) < 4


def test_the_upright_view_follows_the_pose_and_not_the_grid() -> None:
    """A spot in front of the head appears at the top of its axial plane, whatever the pose and the storage."""
    rotation = random_rotations(1, generator=torch.Generator().manual_seed(4))[0]
    pose = Pose(rotation, torch.tensor([5.0, -4.0, 3.0], dtype=torch.float64), "head", "world")
    point = pose.apply(torch.tensor([0.0, 30.0, 0.0], dtype=torch.float64)).tolist()
    affine = torch.diag(torch.tensor([-2.0, 2.0, 2.0, 1.0], dtype=torch.float64))  # left-handed storage
    affine[:3, :3] = rotation_about("z", 20.0) @ affine[:3, :3]
    affine[:3, 3] = -affine[:3, :3] @ torch.full((3,), 39.5, dtype=torch.float64)
    x, y = spot(pixels(head_panels(volume_with_spot((point[0], point[1], point[2]), affine), pose)[0].webp))
    assert abs(x) < 5
    assert y == pytest.approx(30 / 150 * PICTURE_PIXELS, abs=5)


def test_arrows_point_where_the_heads_axes_point() -> None:
    """Half a turn about z: the head's front (green) looks down in the axial plane, its right (red) to the left."""
    pose = Pose(rotation_about("z", 180.0), torch.zeros(3, dtype=torch.float64), "head", "world")
    picture = pixels(scan_panels(volume_with_spot((0.0, 0.0, -60.0)), pose)[0].webp)

    def center_of(color: str) -> tuple[float, float]:
        wanted = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)], dtype=float)
        rows, columns = np.nonzero(np.abs(picture - wanted).max(axis=2) < 40)
        return float(columns.mean() - MIDDLE), float(MIDDLE - rows.mean())

    red, green = center_of(AXIS_COLORS[0]), center_of(AXIS_COLORS[1])
    assert red[0] < -20
    assert green[1] < -20


def test_the_same_input_gives_the_same_bytes_and_a_small_file() -> None:
    volume = volume_with_spot((20.0, 0.0, 0.0))
    first, second = (head_panels(volume, identity_at()) for _ in range(2))
    assert [panel.webp for panel in first] == [panel.webp for panel in second]
    assert max(len(panel.webp) for panel in first) < 40_000
    assert [panel.name for panel in first] == ["head-axial", "head-axial-eyes", "head-coronal", "head-sagittal"]


def test_a_scan_without_a_head_is_shown_whole_and_an_empty_one_does_not_fail() -> None:
    panels = overview_panels(volume_with_spot((40.0, 0.0, 0.0)))
    x, _ = spot(pixels(panels[0].webp))
    assert x == pytest.approx(40 / 160 * PICTURE_PIXELS, abs=5)
    empty = Volume(torch.zeros(1, 8, 8, 8), torch.eye(4, dtype=torch.float64))
    assert len(overview_panels(empty)) == 3


def test_pictures_leave_nothing_behind_and_do_not_shine_through_the_next() -> None:
    """A figure per panel left 15,000 objects in cycles for every scan, until Python happened to look for them."""
    volume = volume_with_spot((30.0, 10.0, 0.0))
    mask = Volume((volume.data > 50).float(), volume.affine)
    turned = Pose(rotation_about("y", 40.0), torch.tensor([5.0, 0.0, 3.0]).double(), "head", "world")

    def draw() -> list[bytes]:
        panels = [*scan_panels(volume, turned, mask), *head_panels(volume, turned), *overview_panels(volume, mask)]
        return [panel.webp for panel in panels]

    drawn = draw()
    gc.collect()
    assert draw() == drawn
    assert gc.collect() < 500
    with ThreadPoolExecutor(1) as another:
        assert another.submit(lambda: [panel.webp for panel in overview_panels(volume, mask)]).result() == drawn[-3:]
