"""Training with Lightning: exact resume, best and last checkpoints, sample-weighted means, curves.

The one place that knows Lightning. A task gives a :class:`Course` (network, loss, metrics, optimiser) and two
:class:`Samples`; everything else is the same for every task. All random numbers derive from the seed, the epoch and the
position of a sample, so a run that goes on from ``last.ckpt`` gives, on a CPU, bit for bit what an uninterrupted one
gives. Checkpoints hold tensors and plain values only and are read with ``weights_only=True``.
"""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import DataLoader

from equivox.errors import ConfigError, MissingExtraError, OutputError
from equivox.run.curves import Curves
from equivox.run.interrupt import restored_interrupt
from equivox.run.launched import Launched, launched
from equivox.run.ranks import Share, end_followers, gather_sums, leave_group, rank, strategy_for, wait_for_all
from equivox.run.sampling import Drawn, Group, Sample, Samples, group_samples
from equivox.run.schedule import PRECISIONS
from equivox.run.schedule import Schedule as Schedule
from equivox.run.seeds import seed_for, seeded
from equivox.run.sums import SampleSums

try:
    import lightning.pytorch as pl
    from lightning.fabric.utilities.warnings import PossibleUserWarning
except ImportError as error:  # pragma: no cover - exercised in a fresh interpreter
    raise MissingExtraError("lightning", "train", "Training") from error

Values = Mapping[str, Float[Tensor, "batch"]]
"""One number per sample by name; ``"loss"`` is what training makes small."""

BEST, LAST = "best.ckpt", "last.ckpt"


@runtime_checkable
class Course(Protocol):
    """What is trained, and how it is judged."""

    network: nn.Module

    def training_values(self, group: Group) -> Values:
        """Loss and further numbers of each sample, network in training mode."""
        ...

    def validation_values(self, group: Group) -> Values:
        """Loss and metrics of each sample, network in evaluation mode, no gradients."""
        ...

    def optimizer(self) -> torch.optim.Optimizer:
        """A fresh optimiser over the network's parameters."""
        ...


@runtime_checkable
class Paced(Protocol):
    """A course whose learning rate, or whose way of judging, depends on the epoch."""

    def start_epoch(self, epoch: int, optimizer: torch.optim.Optimizer) -> None:
        """Called before every epoch, also the first one after a resume."""
        ...


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a run has reached.

    Parameters
    ----------
    epochs
        Epochs done in all.
    best_epoch, best_value
        Where the monitored number was smallest (epochs count from 0).
    best, last
        The checkpoints.
    """

    epochs: int
    best_epoch: int
    best_value: float
    best: Path
    last: Path


def fit(
    course: Course,
    training: Samples,
    validation: Samples,
    schedule: Schedule,
    folder: Path,
    *,
    device: torch.device,
    resume: bool = False,
    tensorboard: bool = False,
    on_epoch: Callable[[int, Mapping[str, float]], None] | None = None,
) -> Fitted:
    """Train until ``schedule.epochs`` are done; the network of ``course`` is left as it was in the last epoch.

    Writes ``checkpoints/best.ckpt``, ``checkpoints/last.ckpt`` (each whole at any moment) and ``curves.csv`` into
    ``folder``, and TensorBoard's files on request. Torch's global generator, which dropout draws from, is set from the
    seed in every epoch and given back afterwards as it was.

    Where torchrun or Slurm has started several processes they share every batch. Only the first writes and returns; the
    others end here with exit code 0, as nothing that comes after a training is worth doing twice.

    Parameters
    ----------
    resume
        Go on from ``checkpoints/last.ckpt``, or begin where there is none. A run that is done is left as it is.
    on_epoch
        Called with the epoch and its row of the curves.

    Raises
    ------
    ConfigError
        If the data are empty, the loss is not finite, or more epochs are done already.
    OutputError
        If the checkpoint cannot be read or something cannot be written.
    KeyboardInterrupt
        If the run is interrupted; it can be resumed from the last whole epoch.
    SystemExit
        In all but the first of several processes, when all is done.
    """
    for name, samples in (("training", training), ("validation", validation)):
        if len(samples) == 0:
            raise ConfigError(f"there are no {name} samples; look at the folders and the table that name them.")
    group = launched()
    if group is not None:
        schedule = replace(schedule, devices=group.size)
    checkpoints = folder / "checkpoints"
    if rank() == 0:
        checkpoints.mkdir(parents=True, exist_ok=True)
    start = checkpoints / LAST if resume and (checkpoints / LAST).exists() else None
    done = None if start is None else _finished(start, schedule)
    if done is not None:
        end_followers()
        return Fitted(done["epochs"], done["best_epoch"], done["best_value"], checkpoints / BEST, checkpoints / LAST)
    module = _Module(course)
    keeper = _Keeper(schedule, folder, on_epoch)
    with _quiet(), seeded(schedule.seed, "run"), restored_interrupt():
        trainer = pl.Trainer(
            max_epochs=schedule.epochs,
            accelerator={"cuda": "gpu"}.get(device.type, device.type),
            devices=_devices(device, schedule, group),
            num_nodes=1 if group is None else group.nodes,
            plugins=_environment(group),
            strategy=strategy_for(schedule.devices),
            precision=PRECISIONS[schedule.precision],
            logger=_tensorboard(folder) if tensorboard else False,
            callbacks=[keeper],
            default_root_dir=folder,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            check_val_every_n_epoch=schedule.validate_every,
            use_distributed_sampler=False,
        )
        try:
            trainer.fit(
                module,
                _loader(training, schedule, training=True),
                _loader(validation, schedule, training=False),
                ckpt_path=start,
                weights_only=True if start else None,
            )
        except SystemExit:
            if trainer.interrupted:
                raise KeyboardInterrupt from None
            raise
    leave_group()
    end_followers()
    if schedule.devices > 1:  # the keeper that knows was in another process
        done = {**(content := _read(checkpoints / LAST))["keeper"], "epochs": content["epochs"]}
        return Fitted(done["epochs"], done["best_epoch"], done["best_value"], checkpoints / BEST, checkpoints / LAST)
    return Fitted(keeper.epochs, keeper.best_epoch, keeper.best_value, checkpoints / BEST, checkpoints / LAST)


class _Module(pl.LightningModule):
    """A course in Lightning's clothes; holds the sums of the epoch, weighted by samples."""

    def __init__(self, course: Course) -> None:
        super().__init__()
        self.network = course.network
        self.course = course
        self.training_sums = SampleSums()
        self.validation_sums = SampleSums()

    def training_step(self, batch: list[Group], batch_index: int) -> Tensor:
        """Mean loss over the samples of the batch."""
        values = [self.course.training_values(group) for group in batch]
        loss = torch.cat([part["loss"] for part in values])
        if not bool(torch.isfinite(loss).all()):
            raise ConfigError(
                f"the loss is not finite in epoch {self.current_epoch}; "
                "lower --lr, or look for volumes without contrast."
            )
        for part in values:
            self.training_sums.add(part)
        return loss.mean()

    def validation_step(self, batch: list[Group], batch_index: int) -> None:
        """Add up the numbers of the batch's samples."""
        for group in batch:
            self.validation_sums.add(self.course.validation_values(group))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The course's own."""
        return self.course.optimizer()


class _Keeper(pl.Callback):
    """Seeds every epoch; at its end writes its row of the curves, then ``best.ckpt``, then ``last.ckpt``."""

    def __init__(
        self, schedule: Schedule, folder: Path, on_epoch: Callable[[int, Mapping[str, float]], None] | None
    ) -> None:
        self.schedule, self.folder, self.on_epoch = schedule, folder, on_epoch
        self.curves = Curves(folder / "curves.csv")
        self.best_value, self.best_epoch, self.epochs, self.idle = math.inf, -1, 0, 0
        self.columns: list[str] = []

    def state_dict(self) -> dict[str, Any]:
        """What the next run has to know."""
        return {
            "best_value": self.best_value, "best_epoch": self.best_epoch, "idle": self.idle, "columns": self.columns,
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what the last run knew."""
        self.best_value = float(state_dict["best_value"])
        self.best_epoch = int(state_dict["best_epoch"])
        self.idle = int(state_dict.get("idle", 0))
        self.columns = list(state_dict["columns"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drop rows of epochs that a cut-off run had begun to write and the checkpoint does not know."""
        if rank() == 0:
            self.curves.start(self.columns, epochs_done=trainer.current_epoch)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Dropout and the like draw from torch's global generator, which starts anew in every epoch."""
        torch.manual_seed(seed_for(self.schedule.seed, "network", trainer.current_epoch))
        assert isinstance(pl_module, _Module)
        if isinstance(pl_module.course, Paced):
            pl_module.course.start_epoch(trainer.current_epoch, trainer.optimizers[0])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep what the epoch has brought."""
        assert isinstance(pl_module, _Module)
        epoch = trainer.current_epoch
        training, validation = gather_sums(pl_module.training_sums), gather_sums(pl_module.validation_sums)
        row = {**training.take("train"), **validation.take("val")}
        fresh = [name for name in row if name not in self.columns]
        self.columns = [*self.columns, *fresh]
        if rank() == 0:
            if fresh:
                self.curves.start(self.columns, epochs_done=epoch)
            self.curves.append(epoch, row)
        for logger in trainer.loggers:
            logger.log_metrics(row, step=epoch)
        value = row.get(self.schedule.monitor)
        better = value is not None and value < self.best_value
        if value is not None and better:
            self.best_value, self.best_epoch = value, epoch
        self.epochs = epoch + 1
        self.idle = self.idle if value is None else 0 if better else self.idle + 1
        names = [BEST] if better else []
        if self.schedule.keep_every and (epoch + 1) % self.schedule.keep_every == 0:
            names.append(f"epoch-{epoch:06d}.ckpt")
        for name in [*names, LAST]:  # the last one knows the best of its own epoch
            _save(trainer, self.folder / "checkpoints" / name)
        if self.on_epoch is not None and rank() == 0:
            self.on_epoch(epoch, row)
        trainer.should_stop = trainer.should_stop or self.schedule.idle_enough(self.idle)


def _devices(device: torch.device, schedule: Schedule, group: Launched | None) -> int | list[int]:
    """How many devices this machine gives, or which one."""
    if group is not None:
        return group.per_node
    return [device.index or 0] if device.type == "cuda" and schedule.devices == 1 else schedule.devices


def _environment(group: Launched | None) -> list[Any]:
    """Who has started the processes; said outright, since a job of Slurm without srun would be taken for several."""
    from lightning.fabric.plugins import environments as known

    if group is None:
        return [known.LightningEnvironment()]  # type: ignore[attr-defined]
    if group.by == "torchrun":
        return [known.TorchElasticEnvironment()]  # type: ignore[attr-defined]
    return [known.SLURMEnvironment(auto_requeue=False)]  # type: ignore[attr-defined]


def network_weights(checkpoint: Path) -> dict[str, Tensor]:
    """State dict of the network in one of our checkpoints, on the CPU.

    Raises
    ------
    OutputError
        If the file is damaged.
    """
    state = _read(checkpoint)["state_dict"]
    return {name.removeprefix("network."): tensor for name, tensor in state.items()}


def _loader(samples: Samples, schedule: Schedule, *, training: bool) -> DataLoader[Sample]:
    return DataLoader(
        Drawn(samples),
        batch_size=schedule.batch_size // schedule.devices,
        sampler=Share(len(samples), schedule.batch_size, follows=training),
        collate_fn=group_samples,
        num_workers=schedule.workers,
        persistent_workers=schedule.workers > 0,  # they keep what they have opened from epoch to epoch
        generator=torch.Generator().manual_seed(seed_for(schedule.seed, "loader")),
    )


def _save(trainer: pl.Trainer, path: Path) -> None:
    """Write a checkpoint under another name and move it into place."""
    draft = path.with_name(f".{path.name}.part")
    try:
        trainer.save_checkpoint(draft)
        if rank() == 0:
            os.replace(draft, path)
        wait_for_all()
    except (OSError, RuntimeError) as error:
        draft.unlink(missing_ok=True)
        raise OutputError(f"{path} cannot be written ({error}); free some space or choose another folder.") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        keeper = content["callbacks"][_Keeper.__qualname__]
        return {"state_dict": content["state_dict"], "epochs": int(content["epoch"]) + 1, "keeper": keeper}
    except Exception as error:
        raise OutputError(f"{path} cannot be read as a checkpoint of equivox ({error}); start the run anew.") from error


def _finished(checkpoint: Path, schedule: Schedule) -> dict[str, Any] | None:
    """What a checkpoint knows of the best epoch if nothing is left to do, else None."""
    content = _read(checkpoint)
    done: dict[str, Any] = {**content["keeper"], "epochs": content["epochs"]}
    if content["epochs"] > schedule.epochs:
        raise ConfigError(
            f"{checkpoint} has {content['epochs']} epochs already, more than the {schedule.epochs} asked for; "
            "pass more --epochs to go on."
        )
    stopped = schedule.idle_enough(int(done.get("idle", 0)))
    return done if stopped or content["epochs"] == schedule.epochs else None


def _tensorboard(folder: Path) -> Any:
    from lightning.pytorch.loggers import TensorBoardLogger

    try:
        return TensorBoardLogger(folder, name="tensorboard", version="")
    except ModuleNotFoundError as error:
        raise MissingExtraError("tensorboard", "train", "Writing TensorBoard files") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's advice (on workers, on services to log to) and its use of what torch deprecates."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PossibleUserWarning)
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", module="lightning")
            yield
    finally:
        log.setLevel(level)
