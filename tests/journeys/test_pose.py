"""What a user does with scans: predict, look at the page, evaluate, the demo."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from equivox.cli.main import main
from equivox.formats.poses import read_poses_csv
from equivox.samples import fetal_epi_folder

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def rendered(page: Path, folder: Path) -> str:
    """The page's document after a browser without network has opened it from disk."""
    assert CHROMIUM is not None
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
    offline = ("--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder}", "--dump-dom", page.as_uri())
    command = [CHROMIUM, *options, *offline]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    return done.stdout


def test_from_scans_to_a_page_and_back_to_an_evaluation(
    home: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "poses"
    arguments = [str(scans), str(tmp_path / "lost.nii"), "--out", str(out), "--write-mask", "--viewer", "none"]
    assert main(["pose", "predict", *arguments, "--device", "cpu"]) == 1
    page = (out / "report.html").read_text()
    assert page.count("data:image/webp") == 3 * 7
    assert "lost.nii does not exist" in page
    assert "For research, not a medical device" in page
    for path in (
        "poses.csv",
        "poses.json",
        "run.json",
        "head_grid.nii.gz",
        "iso3_ras_pose.tfm",
        "iso3_ras_mask.nii.gz",
    ):
        assert (out / path).is_file()
    capsys.readouterr()
    # its own table as truth: every error is 0, and the one without a pose has none on either side
    assert main(["pose", "evaluate", str(out), str(out / "poses.csv"), "--resamples", "50", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["summaries"]["all"]["by_stack"]["rotation_median_deg"]["value"] == pytest.approx(0.0, abs=1e-3)
    assert document["summaries"]["all"]["stacks"] == 3
    assert any("no pose for lost" in line for line in document["unmatched"])
    assert document["baselines"]["mask axes, signs by an oracle"]["stacks"] == 3


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_pages_open_in_a_browser_without_network(home: Path, scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "poses"
    arguments = ["pose", "predict", str(scans / "iso3_ras.nii.gz"), "--out", str(out), "--viewer", "all"]
    assert main([*arguments, "--device", "cpu"]) == 0
    text = rendered(out / "report.html", tmp_path / "profile")
    assert text.count("<figure>") == 7
    assert 'href="viewer/iso3_ras.html"' in text
    viewer = rendered(out / "viewer/iso3_ras.html", tmp_path / "profile")
    assert "canvas" in viewer


@pytest.mark.slow
def test_the_demo_runs_twice_and_from_another_folder(
    home: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--out", "demo"]) in (0, 1)
    said = capsys.readouterr().out
    assert "The shipped model has seen these stacks" in said
    assert "fet-03_run-1" in said
    assert "fet-05_run-1" in said
    assert str(Path("demo/report.html")) in said
    assert main(["demo", "--out", "demo"]) == 2  # results are there
    capsys.readouterr()
    assert main(["demo", "--out", "demo", "--overwrite", "--json"]) in (0, 1)
    document = json.loads(capsys.readouterr().out)
    assert [stack["id"] for stack in document["stacks"]] == ["fet-03_run-1", "fet-05_run-1"]
    assert (tmp_path / "demo/evaluation.html").is_file()
    assert len(read_poses_csv(tmp_path / "demo/poses.csv")) == 2


def test_the_samples_carry_their_licence_and_their_truth() -> None:
    folder = fetal_epi_folder()
    assert "BSD 2-Clause" in (folder / "LICENSE").read_text()
    names = {path.name for path in folder.glob("*.nii.gz")}
    assert names == {"fet-03_run-1_epi.nii.gz", "fet-05_run-1_epi.nii.gz"}
    assert all(name in (folder / "poses.csv").read_text() for name in names)
