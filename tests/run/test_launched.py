"""Which process of a group this is, as torchrun and Slurm tell it."""

from __future__ import annotations

from pathlib import Path

import pytest

from equivox.errors import ConfigError
from equivox.run import ranks
from equivox.run.launched import Launched, launched
from equivox.run.training_folder import TrainRun, prepare_training

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "RANK": "5", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
SLURM = {"SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "0", "SLURM_NTASKS_PER_NODE": "4(x2)"}


def test_torchrun_and_srun_say_it() -> None:
    assert launched(TORCHRUN) == Launched("torchrun", 5, 8, 2)
    assert launched(SLURM) == Launched("slurm", 0, 8, 2)
    assert Launched("slurm", 0, 8, 2).per_node == 4


def test_a_process_of_its_own() -> None:
    assert launched({}) is None
    assert launched({**TORCHRUN, "RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}) is None
    batch_script = {"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_NTASKS_PER_NODE": "4"}
    assert launched(batch_script) is None, "without srun there is one process, whatever the job has"


def test_what_cannot_train_together_is_refused() -> None:
    with pytest.raises(ConfigError, match="without --ntasks-per-node"):
        launched({name: value for name, value in SLURM.items() if name != "SLURM_NTASKS_PER_NODE"})
    with pytest.raises(ConfigError, match="do not fill whole nodes"):
        launched({**TORCHRUN, "WORLD_SIZE": "7"})
    with pytest.raises(ConfigError, match="cannot be read"):
        launched({"TORCHELASTIC_RUN_ID": "none"})


def test_the_first_process_alone_prepares_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = {"seed": 0, "settings": {"epochs": 1}}
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert ranks.rank() == 5
    assert prepare_training(TrainRun(out=tmp_path / "out"), plan) == tmp_path / "out"
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit) as ended:
        ranks.end_followers()
    assert ended.value.code == 0
    monkeypatch.setenv("RANK", "0")
    ranks.end_followers()
    prepare_training(TrainRun(out=tmp_path / "out"), plan)
    assert (tmp_path / "out" / "training.json").exists()
