"""Networks written as files: the same numbers in other hands, free axes, refusals."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from equivox.cli.main import main
from equivox.errors import ConfigError
from equivox.nets.brain_contrast import BrainContrast
from equivox.tasks.encode.train_certificate import phantom
from equivox.weights.exporting import _quiet, export_network
from equivox.weights.folder import ModelFolder, write_model_folder
from equivox.weights.registry import build_network

TINY = {"architecture": "pose_net", "poolings": 0, "kernel_size": 3, "multiplier": 1, "symmetry": "SO3"}
HEAD = {"architecture": "head_pose", "side": 8, "depths": [1, 1, 1], "widths": [0.2, 0.2, 0.2]}


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    networks = {"rotate": TINY, "head": HEAD}
    weights = {name: dict(build_network(fields).state_dict()) for name, fields in networks.items()}
    return write_model_folder(
        tmp_path / "tiny", name="tiny", task="pose", behaviour="equivox", networks=networks, weights=weights,
        card="# tiny\n", certificate={}, license_text="none\n",
    )  # fmt: skip


def network_of(folder: ModelFolder, name: str) -> nn.Module:
    return folder.networks()[name]


def test_onnx_gives_the_networks_numbers_on_shapes_it_was_not_traced_with(folder: ModelFolder, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    written = export_network(folder, tmp_path / "rotate.onnx", format="onnx", network="rotate")
    assert written.inputs == (("batch", 1, "x", "y", "z"),)
    assert written.difference < 1e-5
    session = onnxruntime.InferenceSession(str(tmp_path / "rotate.onnx"))
    for shape in [(3, 1, 4, 6, 8), (1, 1, 10, 4, 5)]:
        field = torch.rand(shape, generator=torch.Generator().manual_seed(1))
        result = session.run(None, {session.get_inputs()[0].name: field.numpy()})[0]
        with torch.no_grad():
            expected = network_of(folder, "rotate")(field).numpy()
        np.testing.assert_allclose(result, expected, atol=1e-5 * np.abs(expected).max(), rtol=0)


def test_the_contrast_of_brains_as_onnx_agrees_on_a_brain_and_on_a_mask_without_depth() -> None:
    """Noise as a mask leaves nothing to fit a trend to: a matrix of zeros, whose floor exporters must not drop."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    contrast = BrainContrast(16, degree=0)
    example = phantom(16)
    with _quiet():
        program = torch.onnx.export(contrast, example, dynamo=True, verbose=False)
    assert program is not None
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    names = [entry.name for entry in session.get_inputs()]
    noise = torch.rand(2, 1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(3))
    for volume, mask in (example, (noise[0], noise[1] / 1.5)):
        (found,) = session.run(None, {names[0]: volume.numpy(), names[1]: mask.numpy()})
        wanted = contrast(volume, mask).numpy()
        assert np.abs(wanted).max() > 0.5
        np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=0)


def test_a_torch_program_runs_and_is_told_apart_by_network(folder: ModelFolder, tmp_path: Path) -> None:
    out = tmp_path / "head.pt2"
    command = ["model", "export", str(folder.path), "--network", "head", "--format", "torch", "--out", str(out)]
    assert main(command) == 0
    field = torch.rand(5, 2, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        program = torch.export.load(out).module()
        torch.testing.assert_close(program(field), network_of(folder, "head")(field), atol=1e-5, rtol=1e-4)
    assert main(command) == 2  # it is there now


def test_refusals_say_what_to_do(
    folder: ModelFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="holds the networks head, rotate; choose one with --network"):
        export_network(folder, tmp_path / "a", format="torch")
    with pytest.raises(ConfigError, match="did you mean 'rotate'"):
        export_network(folder, tmp_path / "a", format="torch", network="rotat")
    assert main(["model", "export", "absent", "--out", str(tmp_path / "a")]) == 4
    original = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else original(name))
    capsys.readouterr()
    command = ["model", "export", str(folder.path), "--network", "head", "--out", str(tmp_path / "a.onnx"), "--json"]
    assert main(command) == 5
    document = json.loads(capsys.readouterr().out)
    assert document["errors"][0]["code"] == "EQV-EXTRA"
    assert "equivox[export]" in document["errors"][0]["message"]
    assert not (tmp_path / "a.onnx").exists()
