"""Options that many commands share, each written once.

A command takes one of these dataclasses as a keyword-only argument; its fields become options with the docstrings
below as their help. ``--debug`` is no field: the entry point takes it (see ``cli/main.py``).

Annotations are evaluated here, as they are not elsewhere: a group that is extended in another module is read there.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

if TYPE_CHECKING:
    from equivox.run.batch import RunChoice
    from equivox.run.training_folder import TrainRun

RUNNING = Group("Running", sort_key=9)
_OPTION = Parameter(group=RUNNING)
_FLAG = Parameter(group=RUNNING, negative="")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Output:
    """How a command speaks and whether it may replace files."""

    overwrite: Annotated[bool, _FLAG] = False
    """Replace existing results."""
    json: Annotated[bool, _FLAG] = False
    """Print one JSON document on stdout."""
    quiet: Annotated[bool, _FLAG] = False
    """Print no progress."""

    def as_dict(self) -> dict[str, object]:
        """The options by name, for the run record."""
        return asdict(self)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Run(Output):
    """How work over many inputs is run."""

    device: Annotated[str, _OPTION] = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    threads: Annotated[int | None, _OPTION] = None
    """Threads of one process; as many as there are cores, or 1 with several workers."""
    workers: Annotated[int, _OPTION] = 1
    """Processes on this machine."""
    scheduler: Annotated[str | None, _OPTION] = None
    """Address of a running Dask scheduler, for example tcp://10.0.0.5:8786."""
    resume: Annotated[bool, _FLAG] = False
    """Skip inputs whose results are complete."""

    def choice(self) -> "RunChoice":
        """The same, as tasks take it."""
        from equivox.run.batch import RunChoice

        return RunChoice(
            device=self.device, workers=self.workers, threads=self.threads, scheduler=self.scheduler,
            resume=self.resume, overwrite=self.overwrite,
        )  # fmt: skip


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Training(Output):
    """How a training is run."""

    seed: Annotated[int, _OPTION] = 0
    """Seed of everything random."""
    device: Annotated[str, _OPTION] = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    workers: Annotated[int, _OPTION] = 0
    """Processes that prepare samples; results do not depend on it."""
    resume: Annotated[bool, _FLAG] = False
    """Go on from the last whole epoch, exactly as if nothing had happened."""
    keep_every: Annotated[int | None, _OPTION] = None
    """Keep every so many epochs' checkpoint, beside the best and the last."""
    tensorboard: Annotated[bool, _FLAG] = False
    """Also write TensorBoard files, beside curves.csv."""

    def train_run(self, out: Path) -> "TrainRun":
        """The same, as tasks take it."""
        from equivox.run.training_folder import TrainRun

        return TrainRun(
            out=out, seed=self.seed, device=self.device, workers=self.workers, resume=self.resume,
            overwrite=self.overwrite, keep_every=self.keep_every, tensorboard=self.tensorboard,
        )  # fmt: skip
