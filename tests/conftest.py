"""What every test may count on: fixture files, shared data, a seeded generator, one thread, and no network."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("MPLBACKEND", "Agg")
if "PYTEST_XDIST_WORKER" in os.environ:  # one thread per worker; must be set before torch is imported
    for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(_name, "1")

import pytest
import torch
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]
FIXTURES = ROOT / "tests" / "fixtures"
SHARED = ROOT.parent / "shared"
LOCAL_HOSTS = frozenset({"127.0.0.1", "::1", "localhost", "0.0.0.0", ""})

settings.register_profile("equivox", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("equivox")


def pytest_configure(config: pytest.Config) -> None:
    torch.set_warn_always(True)  # a warning that torch gives once a process would fail another test in each run
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that asks for shared data carries the mark ``shared`` without saying so twice."""
    for item in items:
        if {"shared", "shared_path"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.shared)


def _absent(path: Path) -> None:
    """Skip with a reason; on the build machine (``CI`` set) absence is a failure, never a skip."""
    message = f"{path} is absent: it belongs beside the repository (../shared)"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder ``../shared``, or skip."""
    if not SHARED.is_dir():
        _absent(SHARED)
    return SHARED


@pytest.fixture(scope="session")
def shared_path(shared: Path) -> Callable[[str], Path]:
    """``shared_path("data/fetal/epi/poses.csv")``: a path below ``../shared`` that exists, or skip."""

    def find(name: str) -> Path:
        path = shared / name
        if not path.exists():
            _absent(path)
        return path

    return find


@pytest.fixture(scope="session")
def fixture_path() -> Callable[[str], Path]:
    """``fixture_path("e3pose/04_basis.npz")``: the copy in tests/fixtures, else the one in ../shared/fixtures."""

    def find(name: str) -> Path:
        copy = FIXTURES / name
        if copy.exists():
            return copy
        original = SHARED / "fixtures" / name
        if not original.exists():
            _absent(original)
        return original

    return find


@pytest.fixture
def generator() -> torch.Generator:
    """A CPU generator with a fixed seed."""
    return torch.Generator().manual_seed(20240607)


@pytest.fixture(autouse=True)
def _no_network() -> Iterator[None]:
    """Refuse every connection that leaves this machine; set anew for each test, since plugins may undo it."""

    def guarded(original: Callable[..., Any]) -> Callable[..., Any]:
        def connect(self: socket.socket, address: Any) -> Any:
            host = address[0] if isinstance(address, tuple) else ""
            if self.family in (socket.AF_INET, socket.AF_INET6) and host not in LOCAL_HOSTS:
                raise RuntimeError(f"a test tried to open a network connection to {host!r}")
            return original(self, address)

        return connect

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded(socket.socket.connect))
        patch.setattr(socket.socket, "connect_ex", guarded(socket.socket.connect_ex))
        yield
