"""What a user does with images: train, go on, evaluate, look at the page, predict; and what is said of bad input."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from equivox.cli.main import main
from equivox.geometry.so3_grids import rotation_grid
from equivox.tasks.images.classifier import load_image_model
from equivox.tasks.load import load_model
from equivox.weights.exporting import export_network
from equivox.weights.folder import find_model
from equivox.weights.verify import verify_model

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FAST = ["--preset", "ball_cifar33_5k", "--grid", "T", "--batch-size", "8", "--device", "cpu"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that a few steps can tell apart: bright centres and bright rings."""
    folder = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    axis = np.arange(40) - 19.5
    radius = np.hypot(axis[:, None], axis[None, :])
    for label, center in (("disk", 0.0), ("ring", 12.0)):
        (folder / label).mkdir()
        for number in range(16):
            shape = np.exp(-(((radius - center) / 4) ** 2)) * 160 + draw.normal(0, 12, (40, 40)) + 40
            grey = shape.clip(0, 255).astype(np.uint8)
            Image.fromarray(np.stack([grey] * 3, axis=-1)).save(folder / label / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def model(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few steps of training through the command."""
    out = tmp_path_factory.mktemp("images") / "shapes"
    assert (
        main(["images", "train", str(pictures), "--out", str(out), *FAST, "--epochs", "6", "--lr", "0.01", "--quiet"])
        == 0
    )
    return out / "model"


def test_training_goes_on_exactly_and_is_not_replaced(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["images", "train", str(pictures), *FAST, "--augment", "square"]
    once, twice = tmp_path / "once", tmp_path / "twice"
    assert main([*words, "--out", str(once), "--epochs", "3", "--quiet"]) == 0
    assert main([*words, "--out", str(twice), "--epochs", "2"]) == 0
    assert "[1/2] train_loss" in capsys.readouterr().err
    assert main([*words, "--out", str(twice), "--epochs", "2"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*words, "--out", str(twice), "--epochs", "3", "--resume", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["results"][0]["epochs"] == 3
    first, second = (load_image_model(out / "model").network.state_dict() for out in (once, twice))
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], rtol=0, atol=0)
    assert main([*words, "--out", str(twice), "--epochs", "3", "--resume", "--seed", "5"]) == 2
    assert "begun with another seed" in capsys.readouterr().err


def test_the_model_has_learned_and_says_what_it_is(model: Path, pictures: Path) -> None:
    loaded = load_model(model)
    assert loaded.predict(pictures / "ring" / "03.png").label == "ring"
    assert loaded.predict(pictures / "disk" / "03.png").label == "disk"
    assert all(check.ok for check in verify_model(model))
    certificate = find_model(model).certificate()
    assert certificate["turns_hold"] is False  # the tetrahedral group has no quarter turns
    assert certificate["relative_change_of_logits"]["half turn"] < 1e-5
    assert certificate["relative_change_of_logits"]["mirror"] < 1e-5


def test_the_evaluation_is_a_page_a_table_and_numbers(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["images", "evaluate", str(pictures), "--model", str(model), "--out", str(tmp_path / "r")]
    assert main([*words, "--split", "all", "--json", "--turned", "12"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["pictures"] == 32
    assert document["accuracy"] > 0.9
    assert document["auc"] > 0.9
    sets = {part["name"]: part for part in document["turned"]["sets"]}
    assert sets["upright"]["change"] == 0.0
    assert document["notes"][0].startswith("The split holds pictures")
    page = (tmp_path / "r" / "evaluation.html").read_text()
    assert "Turned pictures" in page
    assert "https://" not in page
    with (tmp_path / "r" / "evaluation_predictions.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 32
    assert main(words) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_the_page_opens_in_a_browser(model: Path, pictures: Path, tmp_path: Path) -> None:
    words = [
        "images",
        "evaluate",
        str(pictures),
        "--model",
        str(model),
        "--out",
        str(tmp_path),
        "--turned",
        "4",
        "--quiet",
    ]
    assert main(words) == 0
    done = subprocess.run(
        [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"file://{tmp_path}/evaluation.html"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "How often the classifier is right" in done.stdout


def test_predictions_are_a_table_and_broken_files_stop_nothing(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    shutil.copy(pictures / "ring" / "01.png", folder / "größe.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    np.savez(tmp_path / "many.npz", x=np.zeros((3, 33, 33, 3), np.uint8))
    out = tmp_path / "out"
    inputs = [str(folder), str(tmp_path / "many.npz"), str(tmp_path / "gone.png")]
    words = ["images", "predict", *inputs, "--model", str(model), "--out", str(out)]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "broken.jpg is" in said
    assert "gone.png does not exist" in said
    with (out / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["failed", "ok", "ok", "ok", "ok", "failed"]
    assert rows[1]["label"] == "ring"
    assert rows[1]["input"].endswith("größe.png")
    assert rows[2]["input"].endswith("many.npz#000000")
    assert float(rows[1]["p_disk"]) + float(rows[1]["p_ring"]) == pytest.approx(1.0, abs=1e-5)
    assert main([*words, "--resume", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "equivox.images.run/1"
    assert len(document["errors"]) == 2
    assert json.loads((out / "run.json").read_text())["outcome"] == "some_failed"
    assert (
        main(["images", "predict", str(folder / "broken.jpg"), "--model", str(model), "--out", str(tmp_path / "o")])
        == 3
    )


def test_what_a_killed_run_was_writing_is_cleared_away(model: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["images", "predict", str(pictures / "ring" / "01.png"), "--model", str(model), "--out", str(out)]
    assert main([*words, "--quiet"]) == 0
    for name in (".writing-12345678-predictions.csv", "items/.writing-12345678-02.json"):
        (out / name).write_text("half")
    assert main([*words, "--resume", "--quiet"]) == 0
    assert not list(out.rglob(".writing-*"))


def test_the_network_is_exported(model: Path, tmp_path: Path) -> None:
    rotation_grid.cache_clear()  # as in a fresh process: nothing is known of the grid yet
    written = export_network(find_model(model), tmp_path / "network.pt2", format="torch")
    assert written.inputs == (("batch", 3, 33, 33),)
    assert written.difference < 1e-5


def test_mistakes_are_one_sentence_each(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "o")]
    (tmp_path / "one" / "cat").mkdir(parents=True)
    shutil.copy(pictures / "ring" / "01.png", tmp_path / "one" / "cat" / "1.png")
    cases = [
        (["train", str(tmp_path / "gone"), "--preset", "conv_cifar33", *out], 3, "does not exist"),
        (["train", str(pictures), "--preset", "conv_cifar", *out], 2, "did you mean 'conv_cifar33'"),
        (["train", str(pictures), "--preset", "conv_cifar33", "--grid", "O", *out], 2, "has no rotations"),
        (["train", str(pictures), "--preset", "so3_cifar33", "--grid", "d4opt-17", *out], 2, "no table d4opt-17"),
        (["train", str(pictures), "--preset", "so2_cifar33", "--grid", "O", *out], 2, "turns out of it"),
        (["train", str(tmp_path / "one"), "--preset", "conv_cifar33", *out], 3, "no pictures for validation"),
        (["evaluate", str(tmp_path / "one"), "--model", str(model), "--split", "all", *out], 3, "has not seen"),
        (["evaluate", str(pictures), "--model", "nothing", *out], 4, "no model named"),
        (["predict", str(pictures), "--model", "cath-10arch", *out], 4, "for the task 'shapes'"),
    ]
    for words, code, sentence in cases:
        assert main(["images", *words]) == code, words
        said = capsys.readouterr().err.strip().splitlines()
        assert sentence in said[-1], said
        assert said[-1].startswith("equivox: ")
