from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from equivox.weights.importing import ImportSettings, import_published


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, fixture_path: Callable[[str], Path]) -> Path:
    """The published checkpoints of fixture 23 as a model folder: small, trained, not good."""
    folder = tmp_path_factory.mktemp("home") / "fetal-head-epi"
    import_published(
        fixture_path("e3pose/23_unet_tiny.ckpt"), fixture_path("e3pose/23_e3cnn_tiny.pth"), folder,
        settings=ImportSettings(segment_size=32, rotate_size=16),
    )  # fmt: skip
    return folder


@pytest.fixture
def home(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model home in which the tiny model bears the default model's name: commands find it without an option."""
    monkeypatch.setenv("EQUIVOX_HOME", str(tiny_model.parent))
    return tiny_model.parent


@pytest.fixture(scope="session")
def scans(fixture_path: Callable[[str], Path]) -> Path:
    """Three small scans of one synthetic head: right-handed, left-handed, oblique and anisotropic."""
    return fixture_path("e3pose/24_pipeline")
