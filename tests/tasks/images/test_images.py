"""Pictures to fields, sources and their parts, learning rates, and what is said of data that cannot be used."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from equivox.errors import ConfigError, InputError
from equivox.nets.projected_presets import PRESETS
from equivox.tasks.images.config import DataConfig, ImageTraining, InputConfig, image_preset
from equivox.tasks.images.contents import squares_of
from equivox.tasks.images.data import central_square, channel_statistics, make_field, turn_field
from equivox.tasks.images.samples import ImageSamples
from equivox.tasks.images.sources import Entry, deal_out, open_source
from equivox.tasks.images.train import training_parts
from equivox.tasks.images.train_course import ImageCourse

PICTURES = np.random.default_rng(0).integers(0, 256, (40, 12, 12, 3), dtype=np.uint8)


def test_cifar_pictures_gain_a_row_and_a_column_of_the_mean() -> None:
    config = InputConfig(side=33, mean=(0.5, 0.4, 0.3), deviation=(0.2, 0.2, 0.1))
    picture = torch.arange(3 * 32 * 32).remainder(256).to(torch.uint8).reshape(3, 32, 32)
    square = central_square(picture, config)
    torch.testing.assert_close(square, picture)
    field = make_field(square[None], config)
    assert field.shape == (1, 3, 33, 33)
    assert float(field[..., 32, :].abs().max()) == float(field[..., :, 32].abs().max()) == 0.0
    expected = (picture[1, 3, 4] / 255.0 - 0.4) / 0.2
    assert float(field[0, 1, 3, 4]) == pytest.approx(float(expected), abs=1e-6)


def test_the_central_square_is_taken_and_resized() -> None:
    picture = torch.zeros(3, 424, 500, dtype=torch.uint8)
    picture[:, 212 - 90 : 212 + 90, 250 - 90 : 250 + 90] = 200
    found = central_square(picture, InputConfig(side=45, crop=180))
    assert found.shape == (3, 45, 45)
    assert int(found.min()) == int(found.max()) == 200
    exact = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(central_square(exact, InputConfig(side=45, crop=45)), exact[:, 9:54, 9:54])
    assert central_square(exact, InputConfig(side=45, channels=1)).shape == (1, 45, 45)
    assert central_square(exact[:1], InputConfig(side=45)).shape == (3, 45, 45)
    with pytest.raises(InputError, match="5 x 60 pixels; at least 8"):
        central_square(exact[:, :60, :5], InputConfig(side=45))


def test_fields_turn_exactly_by_quarters_and_smoothly_between(generator: torch.Generator) -> None:
    field = torch.randn(1, 1, 9, 9, generator=generator)
    moved = turn_field(field, 90.0)  # +x goes to +y: what lay right of the centre lies below it
    assert float(moved[0, 0, 6, 4]) == float(field[0, 0, 4, 6])
    torch.testing.assert_close(turn_field(turn_field(field, 270.0), 90.0), field)
    torch.testing.assert_close(turn_field(field, 0.0, mirror=True), field.flip(-1))
    axis = torch.arange(33, dtype=torch.float32) - 16
    blob = torch.exp(-((axis[None, :] - 6) ** 2 + (axis[:, None] - 0) ** 2) / 18)[None, None]
    wanted = torch.exp(-((axis[None, :] - 6 * 0.5**0.5) ** 2 + (axis[:, None] - 6 * 0.5**0.5) ** 2) / 18)[None, None]
    torch.testing.assert_close(turn_field(blob, 45.0), wanted, atol=0.02, rtol=0)
    torch.testing.assert_close(turn_field(blob, 90.0001), turn_field(blob, 90.0), atol=1e-3, rtol=0)


def test_statistics_are_those_of_all_pixels() -> None:
    squares = [torch.from_numpy(one).permute(2, 0, 1) for one in PICTURES]
    mean, deviation = channel_statistics(squares)
    assert mean == pytest.approx((PICTURES / 255).mean(axis=(0, 1, 2)), abs=1e-6)
    assert deviation == pytest.approx((PICTURES / 255).std(axis=(0, 1, 2)), abs=1e-6)
    assert channel_statistics([torch.zeros(1, 3, 3, dtype=torch.uint8)])[1] == (1.0,)


def test_parts_are_dealt_by_class_and_never_change() -> None:
    entries = [Entry(f"{label}/{number}", label, "") for label in range(3) for number in range(20)]
    dealt = deal_out(entries)
    for label in range(3):
        shares = [
            sum(one.split == part and one.label == label for one in dealt) for part in ("train", "validation", "test")
        ]
        assert shares == [14, 3, 3]
    again = {one.id: one.split for one in deal_out(entries[::-1])}
    assert again == {one.id: one.split for one in dealt}
    given = deal_out([Entry(str(n), 0, "test" if n < 5 else "train") for n in range(25)])
    assert [sum(one.split == part for one in given) for part in ("train", "validation", "test")] == [18, 2, 5]
    whole = [Entry("a", 0, "validation"), Entry("b", 0, "train"), Entry("c", 0, "")]
    assert [one.split for one in deal_out(whole)] == ["validation", "train", "train"]


def save(path: Path, **arrays: object) -> DataConfig:
    np.savez(path, **arrays)
    return DataConfig(data=str(path))


def test_archives_hold_pixels_or_files(tmp_path: Path) -> None:
    labels = np.arange(40) % 4
    config = InputConfig(side=13)
    names = np.array(["a", "b", "c", "d"])
    tests = np.arange(40) >= 30
    plain = open_source(save(tmp_path / "p.npz", x=PICTURES, label=labels, class_names=names, is_test=tests), config)
    assert plain.classes == ("a", "b", "c", "d")
    assert len(plain.of_split("test")) == 10
    torch.testing.assert_close(plain.squares[3], torch.from_numpy(PICTURES[3]).permute(2, 0, 1))
    files = []
    for picture in PICTURES:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "png")
        files.append(np.frombuffer(buffer.getvalue(), dtype=np.uint8))
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in files])])
    stored = save(tmp_path / "f.npz", jpeg=np.concatenate(files), offsets=offsets, label=labels)
    torch.testing.assert_close(open_source(stored, config).squares, plain.squares)
    assert [name for name, _ in squares_of(tmp_path / "f.npz", config)][:2] == ["000000", "000001"]
    torch.testing.assert_close([square for _, square in squares_of(tmp_path / "p.npz", config)], plain.squares)
    mnist = {f"{part}_images": PICTURES[:8, ..., 0] for part in ("train", "val", "test")}
    counted = {f"{part}_labels": labels[:8, None] for part in ("train", "val", "test")}
    grey = open_source(save(tmp_path / "m.npz", **mnist, **counted), InputConfig(side=13, channels=1))
    assert [len(grey.of_split(part)) for part in ("train", "validation", "test")] == [8, 8, 8]


def test_archives_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    labels = np.arange(40) % 4
    cases: list[tuple[dict[str, object], str]] = [
        ({"x": PICTURES}, "no labels"),
        ({"label": labels}, "no pictures"),
        ({"x": PICTURES.astype(np.float32), "label": labels}, "uint8"),
        ({"x": PICTURES, "label": labels[:7]}, "7 entries for 40"),
        ({"x": PICTURES, "label": labels / 2}, "class numbers are needed"),
        ({"x": PICTURES[..., :2], "label": labels}, "has shape"),
        ({"x": PICTURES, "label": np.full(40, -1)}, "no picture has a label"),
        ({"x": PICTURES[:, :4], "label": labels}, "none of 40 pictures can be used"),
        ({"jpeg": np.zeros(9, np.uint8), "offsets": np.arange(3), "label": labels}, "does not divide"),
    ]
    for number, (arrays, words) in enumerate(cases):
        with pytest.raises(InputError, match=words):
            open_source(save(tmp_path / f"{number}.npz", **arrays), InputConfig(side=13))
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "text.txt").write_text("no archive")
    for name, words in (("text.npz", "no whole .npz"), ("text.txt", "is no .npz"), ("gone", "does not exist")):
        with pytest.raises(InputError, match=words):
            open_source(DataConfig(data=str(tmp_path / name)), InputConfig(side=13))


def test_unlabelled_and_broken_pictures_are_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = np.arange(40) % 4
    labels[:5] = -1
    found = open_source(save(tmp_path / "p.npz", x=PICTURES, label=labels), InputConfig(side=13))
    assert len(found.entries) == 35
    torch.testing.assert_close(found.squares[0], torch.from_numpy(PICTURES[5]).permute(2, 0, 1))
    assert "5 pictures of p.npz have no label" in found.problems[0]
    for name in ("cat/1", "cat/2", "dog/1", "dog/2"):
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PICTURES[0]).save(tmp_path / "d" / f"{name}.png")
    (tmp_path / "d" / "cat" / "1.png").write_bytes(b"broken")
    found = open_source(DataConfig(data=str(tmp_path / "d")), InputConfig(side=13))
    assert [one.id for one in found.entries] == ["cat/2.png", "dog/1.png", "dog/2.png"]
    assert "1.png is no image" in found.problems[0]
    assert "2 things are left out" not in caplog.text


def test_parts_that_cannot_be_learnt_from_are_refused(tmp_path: Path) -> None:
    config = InputConfig(side=13)
    one_class = open_source(save(tmp_path / "a.npz", x=PICTURES, label=np.zeros(40, dtype=int)), config)
    with pytest.raises(InputError, match="one class only"):
        training_parts(one_class)
    few = open_source(save(tmp_path / "b.npz", x=PICTURES[:2], label=np.array([0, 1])), config)
    with pytest.raises(InputError, match="no pictures for validation"):
        training_parts(few)
    mnist = {f"{part}_images": PICTURES[:8] for part in ("train", "val")}
    odd = save(
        tmp_path / "c.npz", **mnist, train_labels=np.arange(8)[:, None] % 2, val_labels=np.arange(8)[:, None] % 3
    )
    with pytest.raises(InputError, match="occurs in validation and never in training"):
        training_parts(open_source(odd, config))
    named = np.array(["a", "b", "c"])
    gap = open_source(save(tmp_path / "d.npz", x=PICTURES, label=np.arange(40) % 2 * 2, class_names=named), config)
    assert "of the class b" in training_parts(gap)[1][0]


def test_the_rate_falls_on_a_plateau_as_pytorch_does() -> None:
    settings = image_preset("linear_cifar33")
    losses = [2.0, 1.5, 1.6, 1.5, 1.55, 1.52, 1.4, 1.41, 1.42, 1.43, 1.44, 1.45, 1.46, 1.47, 1.48]
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([parameter], lr=settings.lr)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=3)
    for count in range(len(losses)):
        assert settings.rate(losses[:count]) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        plateau.step(losses[count])
    assert settings.rate(losses) < settings.lr


def test_presets_are_recipes_with_the_networks_own_size() -> None:
    for name, preset in PRESETS.items():
        settings = image_preset(name)
        assert settings.input.side == preset.side_px
        assert (settings.lr, settings.batch_size, settings.epochs, settings.patience) == (1e-3, 512, 200, 5)
    assert image_preset("ball_gz2_45").input.crop == 180
    assert image_preset("linear_gz2_45", size=51).network["size"] == 51
    assert image_preset("so3_cifar33", grid="d4opt-64", aggregation="max").network["grid"] == "d4opt-64"
    for wrong, words in (
        ({"name": "so3_cifar"}, "did you mean"),
        ({"name": "conv_cifar33", "grid": "O"}, "has no rotations"),
        ({"name": "conv_cifar33", "aggregation": "max"}, "has no rotations"),
        ({"name": "conv_cifar33", "size": 45}, "classifies 33 pixels"),
    ):
        with pytest.raises(ConfigError, match=words):
            image_preset(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"lr": 0.0}, {"lr": float("nan")}, {"side": 32}, {"channels": 2}, {"factor": 0.0},
              {"patience": 0}, {"label_smoothing": 1.0}, {"crop": 0}, {"plateau": -1}, {"deviation": (0.0, 1.0, 1.0)}],
)  # fmt: skip
def test_settings_out_of_range_are_named(wrong: dict[str, object]) -> None:
    name, value = next(iter(wrong.items()))
    with pytest.raises(ConfigError, match=name):
        image_preset("ball_cifar33_5k").with_values(**wrong)
    assert value is not None


def test_the_input_comes_back_from_its_dictionary() -> None:
    config = InputConfig(side=33, mean=(0.1, 0.2, 0.3), deviation=(1.0, 2.0, 3.0), crop=40)
    assert InputConfig.from_dict(config.as_dict(), where="here") == config
    with pytest.raises(ConfigError, match="unknown entry 'sid'; did you mean 'side'"):
        InputConfig.from_dict({"sid": 3}, where="here")


def test_training_samples_follow_the_seed_and_validation_stays(tmp_path: Path) -> None:
    source = open_source(save(tmp_path / "p.npz", x=PICTURES, label=np.arange(40) % 4), InputConfig(side=13))
    settings = image_preset("linear_cifar33")
    for kind in ("none", "mirror", "square", "turn"):
        chosen = settings.with_values(augment=kind)
        first, second, other = (
            ImageSamples(source, source.of_split("train"), chosen, training=True, seed=seed) for seed in (1, 1, 2)
        )
        same = [bool((first.sample(2, at)["picture"] == second.sample(2, at)["picture"]).all()) for at in range(10)]
        assert all(same)
        assert first.order(0) != first.order(1) != other.order(1)
        assert first.sample(0, 0)["picture"].dtype == torch.uint8
    still = ImageSamples(source, source.of_split("validation"), settings, training=False, seed=1)
    torch.testing.assert_close(still.sample(0, 0)["picture"], still.sample(7, 0)["picture"])


def test_the_first_weights_follow_the_seed_and_a_wrong_size_is_named(tmp_path: Path) -> None:
    settings = image_preset("ball_cifar33_5k")
    one, two, three = (ImageCourse(settings, [5, 5], tmp_path / "c.csv", seed=seed).network for seed in (1, 1, 2))
    pairs = zip(one.parameters(), two.parameters(), three.parameters(), strict=True)
    assert all(bool((a == b).all()) for a, b, _ in pairs)
    assert any(bool((a != c).any()) for a, c in zip(one.parameters(), three.parameters(), strict=True))
    wrong = ImageTraining(preset="x", network=settings.network, input=InputConfig(side=45))
    with pytest.raises(ConfigError, match="classifies 33 pixels a side, the input has 45"):
        ImageCourse(wrong, [5, 5], tmp_path / "c.csv", seed=0)


def test_real_pictures_are_read(shared_path: Callable[[str], Path]) -> None:
    tiny = open_source(DataConfig(data=str(shared_path("data/images/cifar10_tiny_100.npz"))), InputConfig(side=33))
    assert (len(tiny.entries), len(tiny.classes), tiny.squares[0].shape) == (100, 10, (3, 32, 32))
    path = shared_path("data/images/galaxy_zoo_examples_64.npz")
    galaxies = open_source(DataConfig(data=str(path)), InputConfig(side=45, crop=45))
    assert len(galaxies.of_split("test")) == 106
    mean, _ = channel_statistics(tiny.squares)
    assert mean == pytest.approx((0.4919, 0.4817, 0.4457), abs=0.03)
