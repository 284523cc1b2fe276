"""`pose predict` on a real local Dask cluster: the files of one process, and nothing lost when something dies.

Workers are processes of their own. The heavy form, with a volume that crashes its workers, with `dask scheduler` and
`dask worker` as a user starts them and a client stopped by a signal, is benchmarks/pose_cluster.py.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from equivox.formats.poses import read_poses_csv
from equivox.run.items import Interrupted
from equivox.tasks.pose.config import PredictConfig
from equivox.tasks.pose.predict import PredictRun, RunChoice, predict_poses

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@dataclass(frozen=True)
class Cluster:
    address: str
    pids: Callable[[], list[int]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two worker processes. Dask gives up at the first death, so that few workers have to be started again."""
    dask = pytest.importorskip("dask")
    distributed = pytest.importorskip("distributed")
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs=50
        ) as local,
    ):  # fmt: skip
        yield Cluster(local.scheduler_address, lambda: [nanny.pid for nanny in local.workers.values() if nanny.pid])


def predict(
    model: Path, inputs: list[Path], out: Path, progress: Callable[..., None] | None = None, **run: Any
) -> PredictRun:
    config = PredictConfig(model=str(model), report=False, viewer="none", transform_format="json", write_mask=True)
    return predict_poses(inputs, out, config, RunChoice(device="cpu", **run), progress=progress)


def files(out: Path) -> dict[str, bytes]:
    """Every result's bytes; not run.json, and of tables and markers all but the times."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.is_file() and name not in ("run.json", "poses.json", "poses.csv") and not name.startswith("items/"):
            found[name] = path.read_bytes()
    found["poses.csv"] = b"\n".join(line.rpartition(b",")[0] for line in (out / "poses.csv").read_bytes().splitlines())
    for marker in sorted((out / "items").glob("*.json")):
        text = "\n".join(line for line in marker.read_text().splitlines() if '"seconds"' not in line)
        found[f"items/{marker.name}"] = text.encode()
    return found


def written(out: Path) -> dict[str, int]:
    """When each input's marker was written."""
    return {path.name: path.stat().st_mtime_ns for path in (out / "items").glob("*.json")}


def test_sixty_volumes_on_two_workers_give_the_files_of_one_process(
    cluster: Cluster, quick_model: Path, small_scans: Any, tmp_path: Path
) -> None:
    scans = small_scans(tmp_path / "scans", 60)
    one = predict(quick_model, scans, tmp_path / "one")
    two = predict(quick_model, scans, tmp_path / "two", scheduler=cluster.address)
    assert one.exit_code == two.exit_code == 0
    assert len(two.rows) == 60
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert len(files(tmp_path / "two")) >= 60 * 4


def test_a_worker_killed_in_the_middle_costs_nothing(
    cluster: Cluster, quick_model: Path, small_scans: Any, tmp_path: Path
) -> None:
    scans = small_scans(tmp_path / "scans", 30)
    killed: list[int] = []

    def kill(done: int, total: int, outcome: object) -> None:
        if done == 8 and not killed:
            killed.append(cluster.pids()[0])
            os.kill(killed[0], signal.SIGKILL)

    run = predict(quick_model, scans, tmp_path / "out", progress=kill, scheduler=cluster.address)
    assert killed
    assert run.exit_code == 0
    assert [Path(row.input).name for row in run.rows] == [path.name for path in scans]
    predict(quick_model, scans, tmp_path / "one")
    assert files(tmp_path / "out") == files(tmp_path / "one")


def test_an_interrupted_client_goes_on_where_it_stopped(
    cluster: Cluster, quick_model: Path, small_scans: Any, tmp_path: Path
) -> None:
    scans = small_scans(tmp_path / "scans", 30)

    def stop(done: int, total: int, outcome: object) -> None:
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        predict(quick_model, scans, tmp_path / "out", progress=stop, scheduler=cluster.address)
    assert len(read_poses_csv(tmp_path / "out/poses.csv")) == 12
    before = written(tmp_path / "out")
    assert 12 <= len(before) < 30
    run = predict(quick_model, scans, tmp_path / "out", scheduler=cluster.address, resume=True)
    after = written(tmp_path / "out")
    kept = [outcome.entry.stem for outcome in run.outcomes if outcome.resumed]
    assert len(kept) >= 12
    assert all(after[f"{stem}.json"] == before[f"{stem}.json"] for stem in kept)
    assert sum(not outcome.resumed for outcome in run.outcomes) <= 18
    assert run.exit_code == 0
    predict(quick_model, scans, tmp_path / "one")
    assert files(tmp_path / "out") == files(tmp_path / "one")
