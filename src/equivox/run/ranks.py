"""Several processes that train one network: which one am I, and what have the others seen?

On one machine the processes are forked by the trainer; under torchrun or Slurm they are there already. Outside of such
a group everything here answers for a group of one.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch.distributed as distributed

from equivox.run.launched import launched
from equivox.run.sampling import Places
from equivox.run.sums import SampleSums


def in_group() -> bool:
    """Whether this process belongs to a group that trains together."""
    return distributed.is_available() and distributed.is_initialized()


def rank() -> int:
    """Number of this process, known before the group has met; 0 writes files."""
    if in_group():
        return distributed.get_rank()
    group = launched()
    return 0 if group is None else group.rank


def group_size() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if in_group() else 1


def wait_for_all() -> None:
    """Go on when all have come here."""
    if in_group():
        distributed.barrier()


def leave_group() -> None:
    """Part when all have come here; from then on every process is alone."""
    if in_group():
        distributed.barrier()
        distributed.destroy_process_group()


def end_followers() -> None:
    """SystemExit in all but the first of the processes that torchrun or Slurm has started: they are done."""
    group = launched()
    if group is not None and group.rank > 0:
        raise SystemExit(0)


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
    if launched() is not None:
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


class Share(Places):
    """The places of an epoch that this process draws."""

    def __init__(self, count: int, batch_size: int, *, follows: bool) -> None:
        super().__init__(count, follows=follows)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return len(own_share(self.count, self.batch_size, padded=self.follows))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        share = own_share(self.count, self.batch_size, padded=self.follows)
        return iter([(self.epoch, position) for position in share])
