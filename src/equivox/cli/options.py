"""Options that many commands share, each written once.

A command takes one of these dataclasses as a keyword-only argument; its fields become options with the docstrings
below as their help. ``--debug`` is no field: the entry point takes it (see ``cli/main.py``).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

if TYPE_CHECKING:
    from equivox.run.batch import RunChoice

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

    def choice(self) -> RunChoice:
        """The same, as tasks take it."""
        from equivox.run.batch import RunChoice

        return RunChoice(
            device=self.device, workers=self.workers, threads=self.threads, scheduler=self.scheduler,
            resume=self.resume, overwrite=self.overwrite,
        )  # fmt: skip
