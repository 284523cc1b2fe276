from __future__ import annotations

from pathlib import Path

import pytest

from equivox.run.curves import Curves


def test_a_row_per_epoch_and_empty_cells_where_nothing_was_measured(tmp_path: Path) -> None:
    curves = Curves(tmp_path / "curves.csv")
    curves.start(["train_loss", "val_loss"])
    curves.append(0, {"train_loss": 1.5})
    curves.append(1, {"train_loss": 1.25, "val_loss": 2.0})
    assert curves.path.read_text() == "epoch,train_loss,val_loss\n0,1.5,\n1,1.25,2\n"


def test_going_on_drops_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    curves = Curves(tmp_path / "curves.csv")
    curves.start(["train_loss"])
    for epoch in range(3):
        curves.append(epoch, {"train_loss": float(epoch)})
    curves.start(["train_loss"], epochs_done=2)
    assert [row["epoch"] for row in curves.rows()] == ["0", "1"]


def test_a_value_without_a_column_is_refused(tmp_path: Path) -> None:
    curves = Curves(tmp_path / "curves.csv")
    curves.start(["train_loss"])
    with pytest.raises(ValueError, match="val_loss"):
        curves.append(0, {"val_loss": 1.0})
