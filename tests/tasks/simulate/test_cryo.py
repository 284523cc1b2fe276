"""``simulate particles`` and ``micrographs``: files that RELION's conventions read back as their truth."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from equivox.cli.main import main
from equivox.errors import ConfigError, InputError, OutputError
from equivox.formats.coordinates import read_coordinates
from equivox.formats.micrographs import open_micrograph
from equivox.formats.mrc import read_mrc, write_mrc
from equivox.formats.particle_images import ParticleImages
from equivox.formats.particles import read_particles
from equivox.formats.star import read_star
from equivox.run.batch import RunChoice
from equivox.simulate.ctf import Microscope, apply_transfer, ctf
from equivox.simulate.micrograph_config import MicrographSimulation
from equivox.simulate.particle_stack import ParticleSimulation
from equivox.tasks.simulate.cryo_run import CryoPlan
from equivox.tasks.simulate.micrographs import simulate_micrographs
from equivox.tasks.simulate.particles import simulate_particles
from equivox.tasks.simulate.specimen_files import SpecimenChoice, open_specimen, sample_names, source_path

PIXEL = 6.0
RESUME = RunChoice(resume=True)
CONFIG = ParticleSimulation(box_px=48, pixel_size_angstrom=PIXEL, snr=5.0, per_micrograph=6)
SMALL = ParticleSimulation(box_px=32, pixel_size_angstrom=8.0, per_micrograph=4)
FIELD = MicrographSimulation(size_px=(128, 144), particles=6, snr=1.0)


def plan(out: Path, **options: object) -> CryoPlan:
    return replace(CryoPlan(out, SpecimenChoice("1igy", PIXEL), Microscope()), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("version", ["3.0", "3.1", "5"])
def test_images_are_the_projections_that_the_table_tells(version: str, tmp_path: Path) -> None:
    """Everything that is needed to make an image again stands in the STAR file: pose, origin, microscope."""
    done = simulate_particles(plan(tmp_path), CONFIG, count=12, version=version)  # type: ignore[arg-type]
    assert (done.exit_code, done.particles) == (0, 12)
    table = read_particles(tmp_path / "particles.star")
    assert table.layout == {"3.0": "relion-3.0", "3.1": "relion-3.1", "5": "relion-5"}[version]
    assert table.require_pixel_size() == PIXEL
    images = torch.from_numpy(ParticleImages(table).read(range(12)))
    specimen, _ = open_specimen(SpecimenChoice("1igy", PIXEL))
    assert table.origin_angstrom is not None
    shifts = torch.from_numpy(-table.origin_angstrom / PIXEL).float()
    clean = specimen.images(table.require_rotations(), side=96, pixel_size_angstrom=PIXEL, shifts_px=shifts)
    assert table.defocus_u_angstrom is not None
    assert table.defocus_v_angstrom is not None
    assert table.defocus_angle_deg is not None
    assert table.voltage_kv is not None
    assert table.cs_mm is not None
    assert table.amplitude_contrast is not None
    scope = Microscope(float(table.voltage_kv[0]), float(table.cs_mm[0]), float(table.amplitude_contrast[0]))
    numbers = (table.defocus_u_angstrom, table.defocus_v_angstrom, table.defocus_angle_deg)
    u, v, angle = (torch.from_numpy(column) for column in numbers)
    transfer = ctf(
        (96, 96), PIXEL, scope, defocus_u_angstrom=u, defocus_v_angstrom=v, defocus_angle_deg=angle
    )  # fmt: skip
    expected = apply_transfer(clean, transfer.float())[:, 24:72, 24:72]
    matching = [np.corrcoef(a.flatten(), b.flatten())[0, 1] for a, b in zip(images, expected, strict=True)]
    assert min(matching) > 0.85  # a ratio of 5 allows 0.91
    others = [np.corrcoef(a.flatten(), b.flatten())[0, 1] for a, b in zip(images, expected.roll(1, 0), strict=True)]
    assert np.mean(matching) > np.mean(others) + 0.3


def test_one_file_does_not_depend_on_workers_or_count(tmp_path: Path) -> None:
    simulate_particles(plan(tmp_path / "a"), SMALL, count=10)
    simulate_particles(plan(tmp_path / "b", run=RunChoice(workers=2)), SMALL, count=6)
    name = "particles/mic_00000.mrcs"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    simulate_particles(plan(tmp_path / "c", seed=1), SMALL, count=4)
    assert (tmp_path / "a" / name).read_bytes() != (tmp_path / "c" / name).read_bytes()


def test_a_resumed_run_keeps_what_is_whole_and_makes_the_rest(tmp_path: Path) -> None:
    states: list[str] = []
    simulate_particles(plan(tmp_path), SMALL, count=8)
    with pytest.raises(OutputError, match="--overwrite"):
        simulate_particles(plan(tmp_path), SMALL, count=8)
    whole = (tmp_path / "particles" / "mic_00001.mrcs").read_bytes()
    (tmp_path / "particles" / "mic_00001.mrcs").write_bytes(whole[:2000])
    simulate_particles(plan(tmp_path, run=RESUME), SMALL, count=8, progress=lambda *a: states.append(a[3]))
    assert states == ["kept", "made"]
    assert (tmp_path / "particles" / "mic_00001.mrcs").read_bytes() == whole
    states.clear()
    other = replace(SMALL, snr=4.0)
    simulate_particles(plan(tmp_path, run=RESUME), other, count=8, progress=lambda *a: states.append(a[3]))
    assert states == ["made", "made"]
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["outcome"] == "done"
    assert record["config"]["snr"] == 4.0


def test_micrographs_come_with_their_truth(tmp_path: Path) -> None:
    done = simulate_micrographs(plan(tmp_path), FIELD, count=2)
    assert done.exit_code == 0
    table = read_particles(tmp_path / "particles.star")
    assert len(table) == done.particles > 6
    listed = read_star(tmp_path / "micrographs.star")
    names = listed.block("micrographs").texts("rlnMicrographName")
    assert names == ["micrographs/mic_00000.mrc", "micrographs/mic_00001.mrc"]
    assert set(table.micrograph or ()) <= set(names)
    found = open_micrograph(tmp_path / names[0])
    assert found.pixels.shape == (128, 144)
    assert found.pixel_size_angstrom == 8.0
    assert found.warnings == ()
    topaz = read_coordinates(tmp_path / "coordinates.txt")
    assert table.x_px is not None
    assert np.abs(topaz.x_px - table.x_px).max() <= 0.5
    assert len(read_coordinates(tmp_path / "decoys.txt")) > 0
    optics = listed.block("optics")
    assert optics.numbers("rlnMicrographPixelSize").tolist() == [8.0]


def test_another_reader_of_star_files_finds_the_same_rows(tmp_path: Path) -> None:
    gemmi = pytest.importorskip("gemmi")
    simulate_particles(plan(tmp_path), SMALL, count=6)
    document = gemmi.cif.read(str(tmp_path / "particles.star"))
    assert [block.name for block in document] == ["optics", "particles"]
    names = list(document[1].find_values("_rlnImageName"))
    assert names[:2] == ["000001@particles/mic_00000.mrcs", "000002@particles/mic_00000.mrcs"]
    table = read_particles(tmp_path / "particles.star")
    assert [float(text) for text in document[1].find_values("_rlnDefocusU")] == np.asarray(
        table.defocus_u_angstrom
    ).tolist()


def test_a_map_that_is_not_cubic_and_a_chain_of_a_structure_are_taken(tmp_path: Path) -> None:
    whole = np.array(read_mrc(source_path("3wip")).data)
    write_mrc(tmp_path / "cut.mrc", whole[8:56, :, 4:60].copy(), pixel_size_angstrom=3.0)
    cut, warnings = open_specimen(SpecimenChoice(str(tmp_path / "cut.mrc"), 4.0))
    full, _ = open_specimen(SpecimenChoice("3wip", 4.0))
    turns = torch.eye(3, dtype=torch.float64)[None]
    first, second = (one.images(turns, side=40, pixel_size_angstrom=4.0) for one in (cut, full))
    assert torch.allclose(first, second, atol=0.01 * float(second.max()))
    assert warnings == ()
    assert sample_names() == ["11as", "1igy", "1oel", "3wip"]


@pytest.mark.parametrize(
    ("choice", "error", "word"),
    [
        (SpecimenChoice("2xyz", 3.0), InputError, "a sample: 11as"),
        (SpecimenChoice("1oel", 3.0, chains=("A",)), ConfigError, "--chains"),
        (SpecimenChoice(__file__, 3.0), InputError, "neither"),
    ],
)
def test_sources_that_cannot_be_used_are_refused(choice: SpecimenChoice, error: type[Exception], word: str) -> None:
    with pytest.raises(error, match=word):
        open_specimen(choice)


def test_a_stack_is_no_map(tmp_path: Path) -> None:
    write_mrc(tmp_path / "a.mrc", np.zeros((3, 8, 8), np.float32), pixel_size_angstrom=1.0, kind="stack")
    with pytest.raises(InputError, match="a stack of images"):
        open_specimen(SpecimenChoice(str(tmp_path / "a.mrc"), 3.0))


def test_the_commands_work_and_mistakes_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["simulate", "particles", "1igy", "--out", str(tmp_path / "p"), "--count", "5", "--box-px", "32"]
    assert main([*base, "--pixel-size-angstrom", "8", "--orientations", "measured", "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["particles"] == 5
    assert main(base) == 2
    assert "--resume" in capsys.readouterr().err
    field = ["simulate", "micrographs", "3wip", "--out", str(tmp_path / "m"), "--count", "1", "--size-px", "128", "160"]
    assert main([*field, "--orientations", "preferred", "--preferred-view", "1", "0", "0", "--relion", "3.0"]) == 0
    assert "particles in 1 micrographs" in capsys.readouterr().err
    for arguments, code, word in (
        (["particles", "nothing"], 3, "does not exist"), (["particles", "1igy", "--box-px", "33"], 2, "even"),
        (["particles", "1igy", "--count", "0"], 2, "--count is 0"), (["micrographs", "1igy", "--snr", "-1"], 2, "snr"),
        (["micrographs", "1igy", "--size-px", "40", "60"], 3, "larger pixels"),
        (["particles", "1igy", "--views", "no.npz"], 3, "no.npz does not exist"),
    ):  # fmt: skip
        out = str(tmp_path / f"x{word[:3]}")
        assert main(["simulate", *arguments, "--out", out]) == code, arguments
        assert word in capsys.readouterr().err
