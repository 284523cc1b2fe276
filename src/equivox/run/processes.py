"""A pool of processes that outlives the death of any of them.

The standard library's executor is broken for good when one worker dies and does not say over which item. Here every
worker has a pipe of its own and holds one item at a time: a death costs that item a retry and starts a new worker.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

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

SECONDS_TO_STOP = 5.0
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(slots=True)
class _Worker:
    process: SpawnProcess
    pipe: Connection
    task: tuple[int, bytes, int] | None = None
    """Index, pickled item and number of this attempt of what it works on."""


def run_in_processes(
    function: Callable[[State, Item], Value],
    items: Sequence[tuple[int, Item]],
    initializer: Callable[[], State],
    workers: int,
    threads: int,
    done: Callable[[ItemResult[Value]], None],
) -> None:
    """Call ``done`` with the result of every (index, item), in the order in which they finish."""
    job = require_picklable("the work", (function, initializer))
    waiting = deque((index, require_picklable("an item", item), 1) for index, item in items)
    pool = [_start(job, threads) for _ in range(workers)]
    try:
        while waiting or any(worker.task for worker in pool):
            for worker in pool:
                if worker.task is None and waiting:
                    _hand_over(worker, waiting.popleft())
            busy = {worker.pipe: worker for worker in pool if worker.task}
            for pipe in wait(list(busy)):
                worker = busy[pipe]  # type: ignore[index]
                index, item, number = worker.task  # type: ignore[misc]
                worker.task = None
                try:
                    answer: Any = pickle.loads(worker.pipe.recv_bytes())
                except (EOFError, OSError):
                    ending = _bury(worker)
                    pool[pool.index(worker)] = _start(job, threads)
                    if number < MAXIMAL_ATTEMPTS:
                        waiting.appendleft((index, item, number + 1))
                    else:
                        done(ItemResult(index, failure=_death(ending), attempts=number))
                    continue
                if isinstance(answer, BaseException):  # the initializer failed: no item can be done
                    raise answer
                done(replace(answer, index=index, attempts=number))
    finally:
        _stop(pool)


def _start(job: bytes, threads: int) -> _Worker:
    """A new process that waits for items."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, job, threads), daemon=True)
    with _interrupts_held():
        process.start()
    there.close()  # so that the death of the worker ends the pipe
    return _Worker(process, here)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back while a process starts: the child inherits the mask and so never dies of it with a trace."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _hand_over(worker: _Worker, task: tuple[int, bytes, int]) -> None:
    """Give an item to an idle worker; if it is dead already, the next read finds out."""
    worker.task = task
    with contextlib.suppress(OSError):
        worker.pipe.send_bytes(task[1])


def _serve(pipe: Connection, job: bytes, threads: int) -> None:
    """Life of a worker: make the state at the first item, then answer item by item until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, _leave)
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(threads)
    state: Any = None
    ready = False
    while True:
        try:
            raw = pipe.recv_bytes()
        except (EOFError, OSError):
            return
        try:
            if not ready:
                function, initializer = pickle.loads(job)
                state = initializer()
                ready = True
                if "torch" in sys.modules:  # else the variables above decide when it is imported
                    limit_threads(threads)
        except Exception as error:
            pipe.send_bytes(_sendable_exception(error))
            return
        result = attempt(function, state, 0, pickle.loads(raw))
        try:
            answer = pickle.dumps(result)
        except Exception as error:
            answer = pickle.dumps(ItemResult[Any](0, failure=as_failure(error), seconds=result.seconds))
        pipe.send_bytes(answer)


def _leave(number: int, frame: object) -> None:
    """SIGTERM: leave through the ``finally`` blocks, so that no temporary file stays."""
    raise SystemExit(128 + number)


def _sendable_exception(error: Exception) -> bytes:
    """The exception itself if it survives pickling, else its text as a RuntimeError."""
    try:
        raw = pickle.dumps(error)
        pickle.loads(raw)
    except Exception:
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return raw


def _bury(worker: _Worker) -> int | None:
    """Wait for a process whose pipe has ended; its exit code."""
    worker.process.join(SECONDS_TO_STOP)
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()
    worker.pipe.close()
    return worker.process.exitcode


def _death(exit_code: int | None) -> Failure:
    """Sentence for an item over which every worker died."""
    cause = f"exit code {exit_code}"
    if exit_code is not None and exit_code < 0:
        cause = f"signal {-exit_code}"
        if -exit_code == signal.SIGKILL:
            cause += ": most likely the machine ran out of memory"
    return Failure(
        "EQV-WORKER",
        f"The worker process died over this input {MAXIMAL_ATTEMPTS} times ({cause}); use fewer --workers.",
    )


def _stop(pool: Sequence[_Worker]) -> None:
    """End idle workers by closing their pipes, busy ones by SIGTERM, deaf ones by SIGKILL."""
    for worker in pool:
        if worker.task is not None:
            worker.process.terminate()
        worker.pipe.close()
    for worker in pool:
        worker.process.join(SECONDS_TO_STOP)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
