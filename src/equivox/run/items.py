"""Work over many independent items: in this process, in processes of this machine, or on a Dask cluster.

The same function runs in all three and gives the same results in the order of the items. An item that fails is a
result with its reason; the others finish. The state that a worker needs (a loaded model) is made once per worker.
"""

from __future__ import annotations

import logging
import pickle
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from equivox.errors import ConfigError, EquivoxError

log = logging.getLogger(__name__)
Item = TypeVar("Item")
State = TypeVar("State")
Value = TypeVar("Value")
MAXIMAL_ATTEMPTS = 2
"""A worker that dies costs its item one retry."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an item has no value: a stable code, one sentence, and for the curious where it arose."""

    code: str
    reason: str
    trace: str = ""


@dataclass(frozen=True, slots=True)
class ItemResult(Generic[Value]):
    """What became of one item.

    Parameters
    ----------
    index
        Position among the items.
    value
        What the function returned; None for a failure.
    failure
        None, or why there is no value.
    seconds
        Wall time of the function.
    attempts
        1, or 2 if a worker died over it; 0 if it was not run.
    resumed
        Whether the value comes from an earlier run.
    """

    index: int
    value: Value | None = None
    failure: Failure | None = None
    seconds: float = 0.0
    attempts: int = 1
    resumed: bool = False


class Interrupted(KeyboardInterrupt):
    """The user stopped the run; ``results`` holds what was finished, in the order of the items."""

    def __init__(self, results: Sequence[ItemResult[Any]]) -> None:
        super().__init__("interrupted")
        self.results = list(results)


def map_items(
    function: Callable[[State, Item], Value],
    items: Sequence[Item],
    *,
    initializer: Callable[[], State],
    workers: int = 1,
    scheduler: str | None = None,
    threads: int | None = None,
    resume: Callable[[Item], Value | None] | None = None,
    on_done: Callable[[ItemResult[Value]], None] | None = None,
) -> list[ItemResult[Value]]:
    """Call ``function(state, item)`` for every item; return one result per item, in their order.

    Parameters
    ----------
    function, items, initializer
        ``state = initializer()`` is made once per worker, before its first item. With several workers all three must
        be picklable: functions of a module, dataclasses, ``functools.partial`` of them.
    workers
        Processes on this machine; 1 works in this process.
    scheduler
        Address of a running Dask scheduler; then ``workers`` must be 1.
    threads
        Threads of torch per worker; by default all in this process, 1 in each of several.
    resume
        Returns the value of an earlier, whole result of an item, or None. Asked here, before anything runs.
    on_done
        Called here, in this process, as items finish (in any order).

    Raises
    ------
    EquivoxError
        What ``initializer`` raises: without a state nothing can be done.
    ConfigError
        If ``workers`` is not positive, both ways are asked for, or the scheduler does not answer.
    MissingExtraError
        If a scheduler is named and Dask is not installed.
    Interrupted
        A KeyboardInterrupt that carries the finished results.
    """
    if workers < 1:
        raise ConfigError(f"--workers is {workers}; it must be 1 or more.")
    if threads is not None and threads < 1:
        raise ConfigError(f"--threads is {threads}; it must be 1 or more.")
    if scheduler is not None and workers > 1:
        raise ConfigError(f"--workers {workers} and --scheduler exclude each other; the cluster has its own workers.")
    results: dict[int, ItemResult[Value]] = {}

    def done(result: ItemResult[Value]) -> None:
        results[result.index] = result
        if result.failure is not None:
            log.debug("item %d failed: %s\n%s", result.index, result.failure.reason, result.failure.trace)
        if on_done is not None:
            on_done(result)

    try:
        for index, item in enumerate(items):
            earlier = None if resume is None else resume(item)
            if earlier is not None:
                done(ItemResult(index, earlier, attempts=0, resumed=True))
        left = [(index, item) for index, item in enumerate(items) if index not in results]
        if not left:
            pass
        elif scheduler is not None:
            from equivox.run.cluster import run_on_cluster

            run_on_cluster(function, left, initializer, scheduler, threads or 1, done)
        elif min(workers, len(left)) > 1 or workers > 1:
            from equivox.run.processes import run_in_processes

            run_in_processes(function, left, initializer, min(workers, len(left)), threads or 1, done)
        else:
            if threads is not None:
                limit_threads(threads)
            state = initializer()
            for index, item in left:
                done(attempt(function, state, index, item))
    except KeyboardInterrupt as interrupt:
        raise Interrupted([results[index] for index in sorted(results)]) from interrupt
    return [results[index] for index in range(len(items))]


def attempt(function: Callable[[State, Item], Value], state: State, index: int, item: Item) -> ItemResult[Value]:
    """Run one item; every exception but an interrupt becomes a :class:`Failure`."""
    start = time.perf_counter()
    try:
        value = function(state, item)
    except Exception as error:
        return ItemResult(index, failure=as_failure(error), seconds=time.perf_counter() - start)
    return ItemResult(index, value, seconds=time.perf_counter() - start)


def as_failure(error: Exception) -> Failure:
    """The sentence of a user's mistake as it is; anything else as a bug or a lack of memory, with its trace."""
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, EquivoxError):
        return Failure(error.code, str(error), trace)
    if isinstance(error, MemoryError) or "out of memory" in str(error):
        return Failure("EQV-MEMORY", "There was not enough memory for this input; use fewer --workers.", trace)
    first = (str(error).splitlines() or [""])[0]
    return Failure(
        "EQV-BUG", f"This is a bug of equivox: {type(error).__name__}: {first} (--debug shows where).", trace
    )


def limit_threads(count: int) -> None:
    """Let torch compute with ``count`` threads in this process."""
    import torch

    torch.set_num_threads(count)


def require_picklable(what: str, value: object) -> bytes:
    """Pickled bytes; TypeError that says what to do if ``value`` cannot travel to a worker."""
    try:
        return pickle.dumps(value)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TypeError(
            f"{what} cannot be sent to a worker ({error}); use a module's function or a dataclass"
        ) from error
