"""Whether torchrun or Slurm has started this process as one of several that train one network.

Read from the environment alone, so that it is known before anything is written; loads no torch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from equivox.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Launched:
    """The place of this process among those that were started together.

    Parameters
    ----------
    by
        Who started them.
    rank
        Number of this process; 0 writes everything.
    size
        How many there are, on all nodes.
    nodes
        On how many machines.
    """

    by: Literal["torchrun", "slurm"]
    rank: int
    size: int
    nodes: int

    @property
    def per_node(self) -> int:
        """Processes on each machine."""
        return self.size // self.nodes


def launched(environment: Mapping[str, str] | None = None) -> Launched | None:
    """The group that this process was started in; None for a process of its own.

    A batch script of Slurm that does not call ``srun`` is a process of its own, however many tasks its job has.

    Raises
    ------
    ConfigError
        If nodes would have different numbers of processes, or ``srun`` was called without ``--ntasks-per-node``.
    """
    found = os.environ if environment is None else environment
    try:
        if "TORCHELASTIC_RUN_ID" in found:
            by: Literal["torchrun", "slurm"] = "torchrun"
            rank, size = int(found["RANK"]), int(found["WORLD_SIZE"])
            per_node = int(found["LOCAL_WORLD_SIZE"])
        elif int(found.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
            by = "slurm"
            rank, size = int(found["SLURM_PROCID"]), int(found["SLURM_STEP_NUM_TASKS"])
            if "SLURM_NTASKS_PER_NODE" not in found:
                raise ConfigError(
                    f"srun has started {size} processes without --ntasks-per-node; give it (in #SBATCH or to srun): "
                    f"training needs the same number of processes on every node."
                )
            per_node = int(found["SLURM_NTASKS_PER_NODE"].partition("(")[0])
        else:
            return None
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"the variables of torchrun or Slurm cannot be read ({error}); start the command with torchrun or srun."
        ) from error
    if size == 1:
        return None
    if per_node < 1 or size % per_node:
        raise ConfigError(
            f"{size} processes with {per_node} on each node do not fill whole nodes; training needs the same number on "
            f"every node."
        )
    return Launched(by, rank, size, size // per_node)
