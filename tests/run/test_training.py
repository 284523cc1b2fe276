from __future__ import annotations

import csv
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from equivox.errors import ConfigError, OutputError
from equivox.run.seeds import generator_for
from equivox.run.training import BEST, LAST, Schedule, fit, network_weights

CPU = torch.device("cpu")


class Line:
    """Samples of a noisy line; the noise of a sample depends on the epoch and its position alone."""

    def __init__(self, count: int, *, seed: int = 0) -> None:
        self.count, self.seed = count, seed

    def __len__(self) -> int:
        return self.count

    def sample(self, epoch: int, position: int) -> dict[str, Tensor]:
        generator = generator_for(self.seed, "sample", epoch, position)
        x = torch.rand(3, generator=generator)
        return {"x": x, "y": (2.0 * x.sum() + 0.01 * torch.randn((), generator=generator))[None]}


class Regression:
    """A small network with dropout, so that a wrong generator would be seen."""

    def __init__(self, *, lr: float = 0.01) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.network: nn.Module = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 1))
        self.lr = lr

    def training_values(self, group: dict[str, Tensor]) -> Mapping[str, Tensor]:
        return {"loss": (self.network(group["x"]) - group["y"]).square().mean(1)}

    def validation_values(self, group: dict[str, Tensor]) -> Mapping[str, Tensor]:
        error = (self.network(group["x"]) - group["y"]).abs().mean(1)
        return {"loss": error.square(), "error": error}

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.network.parameters(), lr=self.lr, momentum=0.9)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "curves.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_f13_a_resumed_run_is_bit_equal_to_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    straight, resumed = Regression(), Regression()
    fitted = fit(straight, Line(7), Line(5, seed=1), Schedule(epochs=6, batch_size=3), whole, device=CPU)
    for epochs in (2, 3, 6):
        resumed = Regression()
        torch.manual_seed(epochs)  # what happens outside must not matter
        again = fit(
            resumed, Line(7), Line(5, seed=1), Schedule(epochs=epochs, batch_size=3), parts, device=CPU, resume=True
        )
    for name, tensor in straight.network.state_dict().items():
        assert torch.equal(tensor, resumed.network.state_dict()[name]), name
    assert (whole / "curves.csv").read_bytes() == (parts / "curves.csv").read_bytes()
    assert (fitted.best_epoch, fitted.best_value) == (again.best_epoch, again.best_value)
    for checkpoint in (BEST, LAST):
        first, second = (network_weights(folder / "checkpoints" / checkpoint) for folder in (whole, parts))
        assert all(torch.equal(first[name], second[name]) for name in first)
    optimizers = [
        torch.load(folder / "checkpoints" / LAST, weights_only=True)["optimizer_states"][0]["state"]
        for folder in (whole, parts)
    ]
    for key, state in optimizers[0].items():
        assert torch.equal(state["momentum_buffer"], optimizers[1][key]["momentum_buffer"])


def test_f13_the_best_value_is_restored_not_another_column(tmp_path: Path) -> None:
    class Worse(Regression):
        """From its second epoch on, validation is worse than in the first, training is not."""

        def validation_values(self, group: dict[str, Tensor]) -> Mapping[str, Tensor]:
            values = super().validation_values(group)
            return {**values, "loss": torch.full_like(values["loss"], self.validation_loss)}

        validation_loss = 1.0

    fitted = fit(Worse(), Line(4), Line(4, seed=1), Schedule(epochs=1), tmp_path, device=CPU)
    assert (fitted.best_epoch, fitted.best_value) == (0, 1.0)
    best = (tmp_path / "checkpoints" / BEST).read_bytes()
    course = Worse()
    course.validation_loss = 1001.0
    fitted = fit(course, Line(4), Line(4, seed=1), Schedule(epochs=3), tmp_path, device=CPU, resume=True)
    assert (fitted.best_epoch, fitted.best_value) == (0, 1.0)
    assert (tmp_path / "checkpoints" / BEST).read_bytes() == best
    assert [row["val_loss"] for row in rows_of(tmp_path)] == ["1", "1001", "1001"]


def test_f22_means_are_weighted_by_samples_whatever_the_batch_size(tmp_path: Path) -> None:
    numbers = []
    for batch_size in (1, 4, 7):
        folder = tmp_path / str(batch_size)
        # a learning rate of 0 leaves the network as it is: only the averaging can differ
        fit(Regression(lr=0.0), Line(7), Line(7, seed=1), Schedule(epochs=1, batch_size=batch_size), folder, device=CPU)
        row = rows_of(folder)[0]
        numbers.append([float(row["val_loss"]), float(row["val_error"])])
    network = Regression().network.eval()
    samples = [Line(7, seed=1).sample(0, position) for position in range(7)]
    with torch.no_grad():
        errors = torch.stack([(network(s["x"][None]) - s["y"]).abs().squeeze() for s in samples]).double()
    expected = [float(errors.square().mean()), float(errors.mean())]
    for found in numbers:
        assert found == pytest.approx(expected, rel=1e-6)


def test_f23_only_best_and_last_are_kept_and_every_k_on_request(tmp_path: Path) -> None:
    fit(Regression(), Line(2), Line(2, seed=1), Schedule(epochs=5), tmp_path / "few", device=CPU)
    assert sorted(p.name for p in (tmp_path / "few" / "checkpoints").iterdir()) == [BEST, LAST]
    fit(Regression(), Line(2), Line(2, seed=1), Schedule(epochs=5, keep_every=2), tmp_path / "more", device=CPU)
    names = sorted(p.name for p in (tmp_path / "more" / "checkpoints").iterdir())
    assert names == [BEST, "epoch-000001.ckpt", "epoch-000003.ckpt", LAST]


def test_training_makes_the_loss_fall_tenfold(tmp_path: Path) -> None:
    fit(Regression(), Line(16), Line(8, seed=1), Schedule(epochs=25, batch_size=4), tmp_path, device=CPU)
    rows = rows_of(tmp_path)
    assert float(rows[-1]["val_loss"]) < 0.1 * float(rows[0]["val_loss"])


def test_an_interrupted_run_says_so_and_goes_on_where_it_was(tmp_path: Path) -> None:
    class Stopped(Line):
        def sample(self, epoch: int, position: int) -> dict[str, Tensor]:
            if (epoch, position) == (1, 2):
                raise KeyboardInterrupt
            return super().sample(epoch, position)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(Regression(), Stopped(4), Line(2, seed=1), Schedule(epochs=3), tmp_path / "cut", device=CPU)
    assert signal.getsignal(signal.SIGINT) is before
    resumed, straight = Regression(), Regression()
    fit(resumed, Line(4), Line(2, seed=1), Schedule(epochs=3), tmp_path / "cut", device=CPU, resume=True)
    fit(straight, Line(4), Line(2, seed=1), Schedule(epochs=3), tmp_path / "whole", device=CPU)
    for name, tensor in straight.network.state_dict().items():
        assert torch.equal(tensor, resumed.network.state_dict()[name]), name


def test_the_global_generator_is_left_as_it_was(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    fit(Regression(), Line(2), Line(2, seed=1), Schedule(epochs=1), tmp_path, device=CPU)
    assert torch.equal(before, torch.get_rng_state())


def test_processes_that_prepare_samples_do_not_change_them(tmp_path: Path) -> None:
    networks = []
    for workers in (0, 1):
        course = Regression()
        schedule = Schedule(epochs=2, batch_size=2, workers=workers)
        fit(course, Line(4), Line(2, seed=1), schedule, tmp_path / str(workers), device=CPU)
        networks.append(course.network.state_dict())
    assert all(torch.equal(networks[0][name], networks[1][name]) for name in networks[0])


def test_errors_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no training samples"):
        fit(Regression(), Line(0), Line(1), Schedule(epochs=1), tmp_path, device=CPU)
    with pytest.raises(ConfigError, match="not finite in epoch 0; lower --lr"):
        fit(Regression(lr=float("nan")), Line(4), Line(1), Schedule(epochs=1), tmp_path / "nan", device=CPU)
    with pytest.raises(ConfigError, match="batch_size is 0"):
        Schedule(epochs=1, batch_size=0)
    with pytest.raises(ConfigError, match="more than the 2 epochs"):
        Schedule(epochs=2, validate_every=3)
    first = fit(Regression(), Line(2), Line(1), Schedule(epochs=2), tmp_path / "done", device=CPU)
    again = fit(Regression(), Line(2), Line(1), Schedule(epochs=2), tmp_path / "done", device=CPU, resume=True)
    assert again == first  # nothing was left to do
    with pytest.raises(ConfigError, match="has 2 epochs already, more than the 1"):
        fit(Regression(), Line(2), Line(1), Schedule(epochs=1), tmp_path / "done", device=CPU, resume=True)
    (tmp_path / "done" / "checkpoints" / LAST).write_bytes(b"not a checkpoint")
    with pytest.raises(OutputError, match="cannot be read"):
        fit(Regression(), Line(2), Line(1), Schedule(epochs=2), tmp_path / "done", device=CPU, resume=True)


class Stagnant(Regression):
    """Validation worsens after the second epoch, whatever is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.epoch = 0

    def start_epoch(self, epoch: int, optimizer: torch.optim.Optimizer) -> None:
        self.epoch = epoch

    def validation_values(self, group: dict[str, Tensor]) -> Mapping[str, Tensor]:
        return {"loss": torch.full((len(group["x"]),), 1.0 + abs(self.epoch - 1))}


def test_patience_ends_a_run_that_no_longer_improves_and_a_resume_knows_it(tmp_path: Path) -> None:
    schedule = Schedule(epochs=20, patience=3)
    fitted = fit(Stagnant(), Line(3), Line(2), schedule, tmp_path / "whole", device=CPU)
    assert (fitted.epochs, fitted.best_epoch) == (5, 1)
    assert len(rows_of(tmp_path / "whole")) == 5
    again = fit(Stagnant(), Line(3), Line(2), schedule, tmp_path / "whole", device=CPU, resume=True)
    assert (again.epochs, again.best_epoch) == (5, 1)
    assert len(rows_of(tmp_path / "whole")) == 5
    fit(Stagnant(), Line(3), Line(2), Schedule(epochs=4, patience=3), tmp_path / "parts", device=CPU)
    parts = fit(Stagnant(), Line(3), Line(2), schedule, tmp_path / "parts", device=CPU, resume=True)
    assert (parts.epochs, parts.best_epoch) == (5, 1)
    with pytest.raises(ConfigError, match="patience is 0"):
        Schedule(epochs=4, patience=0)
