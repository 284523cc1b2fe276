"""Items on a running Dask cluster (and so on Slurm, PBS or Kubernetes, which Dask's own deployers serve)."""

from __future__ import annotations

import hashlib
import pickle
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from equivox import __version__
from equivox.errors import ConfigError, MissingExtraError
from equivox.run.items import (
    MAXIMAL_ATTEMPTS,
    Failure,
    Item,
    ItemResult,
    State,
    Value,
    as_failure,
    attempt,
    limit_threads,
    require_picklable,
)

SECONDS_TO_CONNECT = 10
_states: dict[str, Any] = {}
_lock = threading.Lock()


def run_on_cluster(
    function: Callable[[State, Item], Value],
    items: Sequence[tuple[int, Item]],
    initializer: Callable[[], State],
    scheduler: str,
    threads: int,
    done: Callable[[ItemResult[Value]], None],
) -> None:
    """Call ``done`` with the result of every (index, item), in the order in which they finish.

    Dask runs the items of a dead worker again elsewhere. It cannot tell which of them the worker died of, so items
    that it gives up on are tried again at the end, one at a time: only what then still kills its workers is a failure.

    Raises
    ------
    ConfigError
        If the scheduler does not answer, or its workers have another version of equivox.
    """
    try:
        import distributed
    except ImportError as error:
        raise MissingExtraError("distributed", "cluster", "--scheduler") from error
    dask: Any = distributed
    job = require_picklable("the work", (function, initializer))
    try:
        client = dask.Client(scheduler, timeout=SECONDS_TO_CONNECT, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise ConfigError(
            f"--scheduler {scheduler} does not answer ({error}); give the address that dask scheduler printed."
        ) from error
    try:
        _require_same_version(client, scheduler)
        packed = {index: require_picklable("an item", item) for index, item in items}
        futures = {client.submit(_work, job, threads, item, pure=False): index for index, item in packed.items()}
        suspects = []
        try:
            for future in dask.as_completed(list(futures), loop=client.loop):
                index = futures[future]
                if _was_killed(future.exception()):
                    suspects.append(index)
                else:
                    done(_result_of(future, index))
                future.release()
            for index in sorted(suspects):
                attempts = 1
                while attempts <= MAXIMAL_ATTEMPTS:
                    attempts += 1
                    future = client.submit(_work, job, threads, packed[index], pure=False)
                    futures[future] = index
                    if not _was_killed(future.exception()):
                        break
                done(replace(_result_of(future, index), attempts=attempts))
        finally:
            client.cancel(list(futures))
    finally:
        client.close()


class _StateError(Exception):
    """The initializer failed on a worker; the argument is the pickled exception."""


def _work(job: bytes, threads: int, item: bytes) -> bytes:
    """On a worker: make the state once per process, then run one item."""
    key = hashlib.sha256(job).hexdigest()
    function, initializer = pickle.loads(job)
    with _lock:
        if key not in _states:
            limit_threads(threads)
            try:
                _states[key] = initializer()
            except Exception as error:
                raise _StateError(pickle.dumps(error)) from error
    return pickle.dumps(attempt(function, _states[key], 0, pickle.loads(item)))


def _result_of(future: Any, index: int) -> ItemResult[Any]:
    """What became of an item; raises what the initializer raised."""
    problem = future.exception()
    if isinstance(problem, _StateError):
        raise pickle.loads(problem.args[0])
    if problem is not None:
        return ItemResult(index, failure=_cluster_failure(problem))
    result: ItemResult[Any] = pickle.loads(future.result())
    return replace(result, index=index)


def _was_killed(error: BaseException | None) -> bool:
    """Whether Dask gave up on an item because workers died while they held it."""
    return type(error).__name__ == "KilledWorker"


def _cluster_failure(error: BaseException) -> Failure:
    """Sentence for an item that the cluster could not finish."""
    if _was_killed(error):
        return Failure("EQV-WORKER", "The cluster's workers died over this input; give them more memory.")
    return as_failure(error if isinstance(error, Exception) else RuntimeError(str(error)))


def _version() -> str:
    return __version__


def _require_same_version(client: Any, scheduler: str) -> None:
    """Refuse workers that would compute with another equivox."""
    try:
        found = client.run(_version)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"The workers of --scheduler {scheduler} lack a package ({error}); install it there."
        ) from error
    for worker, version in found.items():
        if version != __version__:
            raise ConfigError(f"Worker {worker} of --scheduler {scheduler} has equivox {version}, not {__version__}.")
