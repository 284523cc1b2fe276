"""Particles: four layouts of one set agree with its truth, and with each other after writing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from equivox.errors import InputError
from equivox.formats.cryosparc import read_cs, write_cs
from equivox.formats.particle_images import ParticleImages
from equivox.formats.particles import Particles, read_particles
from equivox.formats.particles_write import write_particles
from equivox.formats.star import read_star
from equivox.geometry.rotations import random_rotations

CRYO = Path(__file__).parents[1] / "fixtures" / "cryoem"
SMALL = Path(__file__).parents[1] / "fixtures" / "projection2d" / "formats"
TABLES = [
    "star/relion30.star", "star/relion31.star", "star/relion31_messy.star", "star/relion5.star", "cs/particles.cs",
    "cs/particles_split.cs",
]  # fmt: skip
LAYOUTS = {"relion30": "relion-3.0", "relion31": "relion-3.1", "relion31_messy": "relion-3.1", "relion5": "relion-5"}
SHAPES = {f"mic_00{index}.mrc": (4096, 4000) for index in range(3)}


def read(name: str) -> Particles:
    through = [CRYO / "cs" / "particles_split_passthrough.cs"] if "split" in name else []
    return read_particles(CRYO / name, passthrough=through)


def assert_true(particles: Particles) -> None:
    truth = np.load(CRYO / "particles_truth.npz")
    close = np.testing.assert_allclose
    close(particles.require_rotations().numpy(), truth["R_volume_to_image"], atol=1e-6, rtol=0)
    close(particles.origin_angstrom, truth["origin_A"], atol=1e-5, rtol=0)
    close(particles.x_px, truth["coord_px"][:, 0], atol=1e-3, rtol=0)
    close(particles.y_px, truth["coord_px"][:, 1], atol=1e-3, rtol=0)
    assert particles.micrograph == tuple(truth["micrograph"].tolist())
    close(particles.defocus_u_angstrom, truth["defocus_u_A"], atol=2e-3, rtol=0)
    close(particles.defocus_v_angstrom, truth["defocus_v_A"], atol=2e-3, rtol=0)
    close(particles.defocus_angle_deg, truth["defocus_angle_deg"], atol=1e-5, rtol=0)
    close(particles.phase_shift_deg, truth["phase_shift_deg"], atol=1e-5, rtol=0)
    close(particles.voltage_kv, truth["voltage_kV"], rtol=1e-6)
    close(particles.cs_mm, truth["cs_mm"], rtol=1e-6)
    close(particles.amplitude_contrast, truth["amplitude_contrast"], rtol=1e-6)
    assert particles.half_set is not None
    assert particles.half_set.tolist() == truth["half_set"].tolist()
    assert particles.class_number is not None
    assert particles.class_number.tolist() == truth["class_number"].tolist()
    assert particles.image_index is not None
    assert particles.image_index.tolist() == list(range(12))
    assert particles.require_pixel_size() == 2.0


@pytest.mark.parametrize("name", TABLES)
def test_every_layout_tells_the_truth(name: str) -> None:
    particles = read(name)
    assert particles.layout == LAYOUTS.get(Path(name).stem, "cryosparc")
    assert_true(particles)


@pytest.mark.parametrize("target", ["3.0", "3.1", "5", "cs"])
@pytest.mark.parametrize("name", TABLES)
def test_conversion_keeps_the_truth(name: str, target: str, tmp_path: Path) -> None:
    out = tmp_path / ("out.cs" if target == "cs" else "out.star")
    write_particles(out, read(name), version=None if target == "cs" else target, shapes=SHAPES)  # type: ignore[arg-type]
    back = read_particles(out)
    assert_true(back)
    second = tmp_path / "second.star"
    write_particles(second, back, version="3.1")
    assert_true(read_particles(second))


def test_unknown_columns_are_carried_over(tmp_path: Path) -> None:
    star = read_star(CRYO / "star" / "relion30.star")
    block = star.block("").with_columns({"rlnBeamTiltX": [f"0.{index}" for index in range(12)], "myNote": ["a b"] * 12})
    from equivox.formats.star import write_star

    write_star(tmp_path / "a.star", star.with_block(block))
    write_particles(tmp_path / "b.star", read_particles(tmp_path / "a.star"), version="5")
    rows = read_star(tmp_path / "b.star").block("particles")
    assert rows.texts("rlnBeamTiltX") == [f"0.{index}" for index in range(12)]
    assert rows.texts("myNote") == ["a b"] * 12


def test_what_has_no_place_is_said(tmp_path: Path) -> None:
    lost = write_particles(tmp_path / "a.star", read("cs/particles.cs"))
    assert any("alignments3D/alpha" in text for text in lost)
    lost = write_particles(tmp_path / "a.cs", read("star/relion31.star"))
    assert any("Coordinates were left out" in text for text in lost)


@pytest.mark.parametrize("name", TABLES[:5])
def test_new_poses_replace_the_old_and_nothing_else(name: str, tmp_path: Path, generator: torch.Generator) -> None:
    particles = read(name)
    turned = random_rotations(12, generator=generator)
    out = tmp_path / f"out{Path(name).suffix}"
    write_particles(out, particles.with_poses(turned))
    back = read_particles(out)
    assert torch.allclose(back.require_rotations(), turned, atol=2e-7)
    assert back.defocus_u_angstrom is not None
    assert np.array_equal(back.defocus_u_angstrom, particles.defocus_u_angstrom)
    if out.suffix == ".star":
        old, new = (read_star(path).blocks for path in (CRYO / name, out))
        for before, after in zip(old, new, strict=True):
            assert before.labels == after.labels
            for label in before.labels:
                assert "Angle" in label or before.texts(label) == after.texts(label)


def test_a_selection_keeps_rows_of_the_file(tmp_path: Path) -> None:
    for name in ("star/relion31.star", "cs/particles.cs"):
        chosen = read(name).select([11, 2])
        out = tmp_path / f"out{Path(name).suffix}"
        write_particles(out, chosen)
        back = read_particles(out)
        assert back.image_index is not None
        assert back.image_index.tolist() == [11, 2]
        assert np.allclose(back.require_rotations(), read(name).require_rotations()[[11, 2]])


def test_relions_old_pixel_size_follows_from_detector_and_magnification() -> None:
    particles = read_particles(SMALL / "particles_relion30.star")
    assert particles.require_pixel_size() == pytest.approx(1.31)
    assert particles.origin_angstrom is not None
    assert particles.origin_angstrom.tolist() == [[pytest.approx(2.62), pytest.approx(-1.31)]]


def test_optics_groups_give_each_row_its_own_microscope() -> None:
    particles = read_particles(SMALL / "particles_relion31.star")
    assert particles.pixel_size_angstrom is not None
    assert particles.pixel_size_angstrom.tolist() == [1.31, 2.0]
    assert particles.voltage_kv is not None
    assert particles.voltage_kv.tolist() == [300.0, 200.0]
    assert particles.image_path == ("Extract/job010/mics/a_0001.mrcs", "Extract/job010/mics/a_0002.mrcs")


REFUSED = {
    "star_broken/missing_optics_block.star": "no block data_optics",
    "star_broken/unknown_optics_group.star": "optics group 7",
    "star_broken/nan_angle.star": "row 3 .line 44.: _rlnAngleRot is 'nan'",
    "star_broken/not_a_number.star": "'abc'",
    "star_broken/image_index_zero.star": "counted from 1",
    "cs_broken/truncated.cs": "truncated",
    "cs_broken/wrong_magic.cs": "no cryoSPARC table",
    "cs_broken/empty.cs": "0 bytes",
    "cs_broken/no_uid.cs": "no column uid",
    "cs_broken/plain_array.cs": "bare array",
    "cs_broken/duplicate_uid.cs": "rows 1 and 2",
    "cs_broken/nan_pose.cs": "row 3: alignments3D/pose",
    "cs_broken/pickled_objects.cs": "never opened",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_fault_is_one_sentence(name: str) -> None:
    with pytest.raises(InputError, match=REFUSED[name]):
        read_particles(CRYO / name)


def test_a_given_pixel_size_stands_in_for_a_missing_optics_table() -> None:
    particles = read_particles(CRYO / "star_broken" / "missing_optics_block.star", pixel_size_angstrom=1.5)
    assert particles.require_pixel_size() == 1.5


def test_poses_are_asked_for_where_none_are() -> None:
    with pytest.raises(InputError, match="rlnAngleRot"):
        read_particles(CRYO / "star_broken" / "missing_angles.star").require_rotations()
    with pytest.raises(InputError, match="alignments3D/pose"):
        read_particles(CRYO / "cs" / "particles_no_pose.cs").require_rotations()


def test_mixed_pixel_sizes_are_refused_where_one_is_asked_for() -> None:
    particles = read_particles(CRYO / "star_broken" / "mixed_pixel_sizes.star")
    assert len(particles) == 12
    with pytest.raises(InputError, match=r"mixes pixel sizes \(2, 2.5 Å\)"):
        particles.require_pixel_size()


def test_an_empty_table_is_read() -> None:
    assert len(read_particles(CRYO / "star" / "empty_loop.star")) == 0


def test_a_passthrough_of_another_job_is_refused(tmp_path: Path) -> None:
    other = read_cs(CRYO / "cs" / "particles_split_passthrough.cs")
    write_cs(tmp_path / "p.cs", other[:5])
    with pytest.raises(InputError, match="lacks 7 of the 12 uids"):
        read_cs(CRYO / "cs" / "particles_split.cs", passthrough=[tmp_path / "p.cs"])


def test_images_are_found_beside_the_table(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    shutil.copy(CRYO / "star" / "relion31.star", tmp_path / "job")
    shutil.copy(CRYO / "mrc" / "stack.mrcs", tmp_path)
    images = ParticleImages(read_particles(tmp_path / "job" / "relion31.star")).read([0, 11])
    assert images.shape == (2, 24, 24)
    assert images[0, 0, 0] == pytest.approx(-0.7531194686889648)
    assert images[1, -1, -1] == pytest.approx(-0.19030986726284027)


def test_images_that_are_not_there_are_said(tmp_path: Path) -> None:
    shutil.copy(CRYO / "star_broken" / "image_index_beyond.star", tmp_path)
    images = ParticleImages(read_particles(tmp_path / "image_index_beyond.star"))
    with pytest.raises(InputError, match=r"stack\.mrcs does not exist"):
        images.read([0])
    shutil.copy(CRYO / "mrc" / "stack.mrcs", tmp_path)
    with pytest.raises(InputError, match=r"image 99 .* holds 12"):
        images.read([11])
