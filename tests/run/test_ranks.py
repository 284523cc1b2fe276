from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from equivox.errors import ConfigError
from equivox.run import ranks
from equivox.run.schedule import Schedule
from equivox.run.sums import SampleSums

SCRIPT = """
import sys
from pathlib import Path

import torch

from equivox.run.schedule import Schedule
from equivox.run.training import fit, network_weights


class Line:
    def __init__(self):
        torch.manual_seed(0)
        self.network = torch.nn.Linear(3, 1)

    def training_values(self, group):
        error = self.network(group["x"])[:, 0] - group["y"]
        return {"loss": error.square(), "seen": torch.ones_like(error)}

    validation_values = training_values

    def optimizer(self):
        return torch.optim.SGD(self.network.parameters(), lr=0.05)


class Points:
    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def sample(self, epoch, position):
        x = torch.randn(3, generator=torch.Generator().manual_seed(position))
        return {"x": x, "y": x.sum() + 0.5}


if __name__ == "__main__":
    out, devices = Path(sys.argv[1]), int(sys.argv[2])
    schedule = Schedule(epochs=3, batch_size=4, devices=devices)
    fitted = fit(Line(), Points(12), Points(5), schedule, out, device=torch.device("cpu"))
    print(fitted.epochs, fitted.best_epoch, network_weights(fitted.last)["weight"].flatten().tolist())
"""


def learn(script: Path, out: Path, devices: int, *environments: dict[str, str]) -> list[str]:
    """What each process that was started has printed."""
    script.write_text(SCRIPT)
    command = [sys.executable, "-W", "ignore", str(script), str(out), str(devices)]
    started = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )
        for environment in (environments or ({},))
    ]
    answers = []
    for process in started:
        output, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors[-2000:]
        answers.append(output)
    return answers


def under_slurm(number: int, port: int) -> dict[str, str]:
    """What two tasks of srun on one node see."""
    return {
        "SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2", "SLURM_PROCID": str(number), "SLURM_LOCALID": str(number), "SLURM_NODEID": "0",
        "SLURM_NNODES": "1", "SLURM_NODELIST": "127.0.0.1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Curves and answer of one process."""
    folder = tmp_path_factory.mktemp("alone")
    return folder / "out" / "curves.csv", learn(folder / "line.py", folder / "out", 1)[0]


def same(one: tuple[Path, str], two: tuple[Path, str]) -> None:
    """Epochs, best epoch, weights and curves agree."""
    found = []
    for _, text in (one, two):
        epochs, best, weights = text.strip().splitlines()[-1].split(" ", 2)
        found.append((int(epochs), int(best), torch.tensor(eval(weights))))
    assert found[0][:2] == found[1][:2] == (3, 2)
    torch.testing.assert_close(found[0][2], found[1][2], atol=1e-6, rtol=0)
    curves = [path.read_text().splitlines() for path, _ in (one, two)]
    assert curves[0][0] == curves[1][0]
    for left, right in zip(curves[0][1:], curves[1][1:], strict=True):  # every sample counts once, in both parts
        first, second = ([float(cell) for cell in row.split(",")] for row in (left, right))
        assert first == pytest.approx(second, abs=1e-5)


def test_two_forked_processes_learn_what_one_learns(alone: tuple[Path, str], tmp_path: Path) -> None:
    answers = learn(tmp_path / "line.py", tmp_path / "out", 2)
    same(alone, (tmp_path / "out" / "curves.csv", answers[0]))


def test_two_tasks_of_srun_learn_what_one_learns(alone: tuple[Path, str], tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    answers = learn(tmp_path / "line.py", tmp_path / "out", 1, under_slurm(0, port), under_slurm(1, port))
    same(alone, (tmp_path / "out" / "curves.csv", answers[0]))
    assert answers[1] == "", "the second process ends with the training"
    assert not list((tmp_path / "out" / "checkpoints").glob(".*"))


def test_ranks_share_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ranks.own_share(5, 4, padded=True) == [0, 1, 2, 3, 4]
    monkeypatch.setattr(ranks, "group_size", lambda: 2)
    shares = []
    for number in range(2):
        monkeypatch.setattr(ranks, "rank", lambda number=number: number)
        shares.append((ranks.own_share(9, 4, padded=True), ranks.own_share(9, 4, padded=False)))
    assert shares[0][0] == [0, 1, 4, 5, 8]
    assert shares[1][0] == [2, 3, 6, 7, 0]  # padded: as many steps
    assert sorted(shares[0][1] + shares[1][1]) == list(range(9))


def test_alone_nothing_is_gathered_or_waited_for() -> None:
    sums = SampleSums()
    sums.add({"loss": torch.tensor([1.0, 2.0])})
    whole = ranks.gather_sums(sums)
    assert whole.take("train") == {"train_loss": 1.5}
    assert sums.count == 0
    ranks.wait_for_all()
    assert ranks.strategy_for(1) == "auto"


def test_batches_that_devices_do_not_divide_are_refused() -> None:
    with pytest.raises(ConfigError, match="cannot share a batch of 3"):
        Schedule(epochs=1, batch_size=3, devices=2)
    with pytest.raises(ConfigError, match="precision is '8'"):
        Schedule(epochs=1, precision="8")
