"""Model folders: round trip, digests, unknown keys, where names are looked up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from equivox.errors import ModelFolderError, OutputError
from equivox.nets.unet import UNet
from equivox.weights.folder import (
    find_model,
    list_models,
    read_model_folder,
    tensors_sha256,
    write_model_folder,
)
from equivox.weights.verify import verify_model

FIELDS: dict[str, object] = {"architecture": "unet", "classes": 2, "levels": 2, "features": 2}


def _write(path: Path, **changes: Any) -> UNet:
    torch.manual_seed(0)
    network = UNet(classes=2, levels=2, features=2)
    arguments: dict[str, Any] = {
        "name": path.name,
        "task": "pose",
        "behaviour": "mended",
        "networks": {"segment": FIELDS},
        "weights": {"segment": network.state_dict()},
        "card": "# a card\n",
        "certificate": {"tolerance": 1e-5},
        "license_text": "none\n",
        "files": {"heldout.csv": "id,fold\n"},
    }
    write_model_folder(path, **{**arguments, **changes})
    return network


def _edit(path: Path, **changes: object) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, **changes}))


def test_a_network_comes_back_with_its_weights(tmp_path: Path) -> None:
    written = _write(tmp_path / "model")
    folder = read_model_folder(tmp_path / "model")
    read = folder.networks()["segment"]
    assert not read.training
    for name, tensor in written.state_dict().items():
        assert torch.equal(read.state_dict()[name], tensor)
    assert folder.certificate() == {"tolerance": 1e-5}
    assert (tmp_path / "model" / "heldout.csv").read_text() == "id,fold\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _write(tmp_path / name, name="same")
    for file in ("config.json", "model.safetensors", "certificate.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_changed_weights_and_changed_configuration_are_noticed(tmp_path: Path) -> None:
    _write(tmp_path / "weights")
    path = tmp_path / "weights" / "model.safetensors"
    flat = load_file(path)
    metadata = {"config_sha256": _metadata(path)["config_sha256"]}
    flat["segment.head.bias"][0] += 1
    save_file(flat, path, metadata)
    with pytest.raises(ModelFolderError, match="does not hold the weights that"):
        find_model(tmp_path / "weights").networks()
    _write(tmp_path / "config")
    _edit(tmp_path / "config", behaviour="published")
    with pytest.raises(ModelFolderError, match="was changed after the weights were written"):
        find_model(tmp_path / "config").networks()


def _metadata(path: Path) -> dict[str, str]:
    raw = path.read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    return header["__metadata__"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"behavior": "mended"}, r"unknown key 'behavior'; did you mean 'behaviour'\?"),
        ({"format_version": 2}, "format 2; this version of equivox reads"),
        ({"schema": "somebody/1"}, "schema 'somebody/1'"),
        ({"networks": ["unet"]}, "not a table of networks"),
    ],
)
def test_a_configuration_that_is_not_ours_is_refused(change: dict[str, object], said: str, tmp_path: Path) -> None:
    _write(tmp_path / "model")
    _edit(tmp_path / "model", **change)
    with pytest.raises(ModelFolderError, match=said):
        read_model_folder(tmp_path / "model")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({**FIELDS, "level": 2}, r"unknown field 'level'; did you mean 'levels'\?"),
        ({**FIELDS, "architecture": "unett"}, r"which this version does not know; did you mean 'unet'\?"),
        ({**FIELDS, "classes": 0}, "cannot be built: sizes of a UNet must be positive"),
        ({**FIELDS, "features": 4}, r"has shape \(2,.*asks for \(4,"),
        ({**FIELDS, "levels": 1}, r"holds decoder\.0"),
        ({**FIELDS, "levels": 3}, r"lacks encoder\.2"),
    ],
)
def test_fields_that_do_not_fit_the_weights_are_named(fields: dict[str, object], said: str, tmp_path: Path) -> None:
    _write(tmp_path / "model", networks={"segment": fields})
    with pytest.raises(ModelFolderError, match=said):
        find_model(tmp_path / "model").networks()


def test_weights_of_a_network_that_is_not_named_are_refused(tmp_path: Path) -> None:
    network = UNet(classes=2, levels=2, features=2)
    weights = {"segment": network.state_dict(), "other": {"weight": torch.zeros(1)}}
    _write(tmp_path / "model", weights=weights)
    with pytest.raises(ModelFolderError, match="holds weights of other, which"):
        find_model(tmp_path / "model").networks()


def test_broken_folders_have_a_sentence_each(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="there is no such folder"):
        find_model(tmp_path / "absent")
    (tmp_path / "bare").mkdir()
    with pytest.raises(ModelFolderError, match=r"it has no config\.json"):
        find_model(tmp_path / "bare")
    _write(tmp_path / "text")
    (tmp_path / "text" / "config.json").write_text("{")
    with pytest.raises(ModelFolderError, match="cannot be read as JSON"):
        find_model(tmp_path / "text")
    _write(tmp_path / "cut")
    path = tmp_path / "cut" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelFolderError, match="truncated or damaged"):
        find_model(tmp_path / "cut").networks()
    path.unlink()
    with pytest.raises(ModelFolderError, match=r"has no model\.safetensors"):
        find_model(tmp_path / "cut").networks()


def test_names_are_looked_up_at_home_and_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    _write(home / "mine")
    _write(here / "local")
    monkeypatch.setenv("EQUIVOX_HOME", str(home))
    monkeypatch.chdir(here)
    assert find_model("mine").path == home / "mine"
    with pytest.raises(ModelFolderError, match=r"no model named 'local'.*write \./local"):
        find_model("local")
    assert find_model("./local").name == "local"
    with pytest.raises(ModelFolderError, match=r"did you mean 'mine'\?"):
        find_model("mien")
    with pytest.raises(ModelFolderError, match="no model named"):
        find_model("..")
    _edit(home / "mine", schema="other")
    broken = dict(list_models())[home / "mine"]
    assert isinstance(broken, ModelFolderError)


def test_a_place_that_is_taken_is_kept(tmp_path: Path) -> None:
    _write(tmp_path / "model")
    with pytest.raises(OutputError, match="--overwrite"):
        _write(tmp_path / "model")
    _write(tmp_path / "model", overwrite=True, behaviour="published")
    assert read_model_folder(tmp_path / "model").config["behaviour"] == "published"
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").touch()
    with pytest.raises(OutputError, match="is not a model folder and will not be replaced"):
        _write(tmp_path / "photos", overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        _write(tmp_path / "file" / "model")


def test_verify_finds_what_is_wrong(tmp_path: Path) -> None:
    _write(tmp_path / "good")
    assert all(check.ok for check in verify_model(tmp_path / "good"))
    _write(tmp_path / "code", license_text=" ")
    (tmp_path / "code" / "modeling.py").write_text("print('hello')")
    failed = {check.name: check.message for check in verify_model(tmp_path / "code") if not check.ok}
    assert set(failed) == {"LICENSE", "no code"}
    assert "modeling.py" in failed["no code"]
    assert not verify_model(tmp_path / "absent")[0].ok
    weights = {name: tensor.clone() for name, tensor in UNet(classes=2, levels=2, features=2).state_dict().items()}
    weights["head.bias"][0] = float("inf")
    _write(tmp_path / "nan", weights={"segment": weights})
    assert any("head.bias holds NaN" in check.message for check in verify_model(tmp_path / "nan"))


def test_the_digest_sees_names_types_shapes_and_values() -> None:
    base = tensors_sha256({"a": torch.zeros(4)})
    assert base == tensors_sha256({"a": torch.zeros(4)})
    others = [
        {"b": torch.zeros(4)},
        {"a": torch.zeros(2, 2)},
        {"a": torch.zeros(4, dtype=torch.int32)},
        {"a": torch.tensor([0.0, 0, 0, 1e-30])},
    ]
    assert len({base, *(tensors_sha256(other) for other in others)}) == 5
