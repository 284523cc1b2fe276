"""Several processes that train one network: which one am I, and what have the others seen?

On one machine the processes are forked by the trainer; under torchrun or Slurm they are there already. Outside of such
a group everything here answers for a group of one.
"""

from __future__ import annotations

import os

import torch.distributed as distributed

from equivox.run.sums import SampleSums


def in_group() -> bool:
    """Whether this process belongs to a group that trains together."""
    return distributed.is_available() and distributed.is_initialized()


def rank() -> int:
    """Number of this process; 0 writes files."""
    return distributed.get_rank() if in_group() else 0


def group_size() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if in_group() else 1


def wait_for_all() -> None:
    """Go on when all have come here."""
    if in_group():
        distributed.barrier()


def gather_sums(sums: SampleSums) -> SampleSums:
    """What all processes have added up; the sums given are emptied."""
    own = (dict(sums.totals), sums.count)
    sums.totals, sums.count = {}, 0
    parts: list[tuple[dict[str, float], int] | None] = [own]
    if in_group():
        parts = [None] * group_size()
        distributed.all_gather_object(parts, own)
    whole = SampleSums()
    for part in parts:
        assert part is not None
        for name, total in part[0].items():
            whole.totals[name] = whole.totals.get(name, 0.0) + total
        whole.count += part[1]
    return whole


def strategy_for(devices: int) -> str:
    """Lightning's name of the way: forked here, or the processes that torchrun or Slurm have started."""
    if "TORCHELASTIC_RUN_ID" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        return "ddp_find_unused_parameters_true"
    return "ddp_fork_find_unused_parameters_true" if devices > 1 else "auto"


def own_share(count: int, batch_size: int, *, padded: bool) -> list[int]:
    """Positions 0 .. count - 1 that this process draws, so that together all see each batch of ``batch_size`` once.

    ``padded`` repeats positions from the start until every process has as many (training steps wait for each other).
    """
    size, own = group_size(), rank()
    if size == 1:
        return list(range(count))
    each = batch_size // size
    positions = list(range(count))
    if padded:
        positions += [place % count for place in range(-count % size)]
    found: list[int] = []
    for start in range(0, len(positions), batch_size):
        batch = positions[start : start + batch_size]
        step = each if len(batch) == batch_size else -(-len(batch) // size)
        found += batch[own * step : (own + 1) * step]
    return found
