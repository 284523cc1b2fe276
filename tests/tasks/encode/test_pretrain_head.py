from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from equivox.cli.main import main
from equivox.errors import ConfigError, OutputError
from equivox.geometry.rotations import random_rotations
from equivox.nets.brain_encoder import BrainEncoder
from equivox.nets.brain_head import BrainHead
from equivox.tasks.encode.data import open_brain
from equivox.tasks.encode.head_fit import fit_head, fit_invariants, pose_errors_deg
from equivox.tasks.encode.model import load_encode_model
from equivox.tasks.encode.photometric import DegradationRange
from equivox.tasks.encode.pooled import PooledScan, pool_scan, pool_scans
from equivox.tasks.encode.train_config import HeadConfig
from equivox.tasks.encode.views import ScanViews


@pytest.fixture(scope="module")
def scans(
    tmp_path_factory: pytest.TempPathFactory, brain_values: Callable[..., np.ndarray], save: Callable[..., Path]
) -> list[Path]:
    """Ten synthetic brains at 8 mm."""
    folder = tmp_path_factory.mktemp("scans")
    affine = np.diag([8.0, 8.0, 8.0, 1.0])
    return [save(folder / f"b{n}.nii.gz", brain_values((22, 26, 22), 8.0, n), affine) for n in range(10)]


def encoder(seed: int = 0) -> BrainEncoder:
    return BrainEncoder(16, 13.2, generator=torch.Generator().manual_seed(seed)).eval()


def test_a_view_is_what_the_encoder_would_see(scans: list[Path]) -> None:
    turn = random_rotations(1, generator=torch.Generator().manual_seed(1))[0]
    ours = ScanViews.open(scans[0], voxel_size_mm=13.2).view(side=16, turn=turn)
    plain = open_brain(scans[0], voxel_size_mm=13.2).sample(side=16, turn=turn)
    torch.testing.assert_close(ours.volume, plain.volume, atol=1e-5, rtol=0)
    assert torch.equal(ours.mask, plain.mask)


def test_a_head_learns_what_to_trust(scans: list[Path], tmp_path: Path) -> None:
    network = encoder()
    pooled = pool_scans(network, scans, 4, DegradationRange(), seed=0, cache=tmp_path / "pooled")
    before = pose_errors_deg(network.head, pooled[8:])
    fit_head(network.head, pooled[:8], HeadConfig(steps=120, batch_size=8), seed=0)
    after = pose_errors_deg(network.head, pooled[8:])
    assert float(after[:, 1:].mean()) < 0.85 * float(before[:, 1:].mean())
    fresh = pool_scan(network, ScanViews.open(scans[9], voxel_size_mm=13.2), 4, DegradationRange(), seed=0, index=9)
    torch.testing.assert_close(fresh.statistics, pooled[9].statistics)  # the cache tells what pooling would
    (tmp_path / "pooled" / "b3.npz").write_bytes(b"torn")
    with pytest.raises(OutputError, match="remove it and run again"):
        pool_scans(network, scans, 4, DegradationRange(), seed=0, cache=tmp_path / "pooled")
    with pytest.raises(ConfigError, match="8 scans"):
        fit_head(network.head, pooled[:4], HeadConfig(), seed=0)


def test_an_invariant_is_weighed_so_that_one_view_guesses_the_person() -> None:
    """Known noise: the weight is the share of variance between persons' averages, and better than its root or none."""
    draw = torch.Generator().manual_seed(3)
    noise = torch.tensor([0.2, 0.5, 1.0, 2.0]).double()
    own = torch.randn(2000, 1, 4, generator=draw, dtype=torch.float64)
    seen = own + noise * torch.randn(2000, 4, 4, generator=draw, dtype=torch.float64)
    polar, axial = torch.randn(4, 3, 3, generator=draw), torch.randn(4, 2, 3, generator=draw)
    head = BrainHead(3, 2, 4, polar=2, axial=2, scalars=4, pseudoscalars=1, gram=1, generator=draw)
    turns = torch.eye(3).expand(4, 3, 3)
    fit_invariants(head, [PooledScan(polar, axial, rows, turns) for rows in seen[:1000]])
    weights = head.direct.weight.detach().diagonal().double()
    between = 1 + noise**2 / 4  # an average over four views keeps a quarter of the noise
    torch.testing.assert_close(weights, between / (between + noise**2), atol=0.04, rtol=0)
    with torch.no_grad():
        guess = torch.stack([head(polar[:1], axial[:1], rows[:1]).scalars[0] for rows in seen[1000:1500]]).double()
    wanted = (own[1000:1500, 0] - head.shift[:4]) / head.scale[:4]
    miss = (guess - wanted).square().mean(0)
    for power in (0.0, 0.5):
        assert bool((miss < (guess * weights ** (power - 1) - wanted).square().mean(0))[1:].all())


def test_the_command_leaves_a_model_that_is_equivariant(
    scans: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(path) for path in scans]
    command = ["encode", "pretrain", *files, "--preset", "head", "--side", "16", "--out", str(tmp_path / "out")]
    assert main([*command, "--json", "--quiet"]) == 0
    result = json.loads(capsys.readouterr().out)["results"][0]
    assert result["scans"] == {"training": 8, "validation": 2}
    network = json.loads((tmp_path / "out" / "model" / "config.json").read_text())["networks"]["encoder"]
    assert network["histogram_layers"] == [1, 2, 3, 4]
    head = load_encode_model(tmp_path / "out" / "model").network.get_submodule("head")
    assert head.direct.weight.shape == (network["scalars"],) * 2
    assert float((head.direct.weight.diagonal() > 0).double().mean()) > 0.97  # one for each statistic that varies
    certificate = json.loads((tmp_path / "out" / "model" / "certificate.json").read_text())
    assert certificate["rotations_hold"]
    assert certificate["mirror_holds"]
    assert main([*command, "--quiet"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*command, "--epochs", "3", "--quiet"]) == 2
    assert "no option epochs" in capsys.readouterr().err
