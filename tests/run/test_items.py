"""One map, three ways to run it: the same results, and nothing lost when something dies."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from equivox.errors import ConfigError, InputError, MissingExtraError, ModelFolderError
from equivox.run.items import Interrupted, ItemResult, map_items

JOBS = '''
import os, pathlib, signal, time
from equivox.errors import InputError, ModelFolderError

def state():
    return None

def torch_state():
    import torch
    return {"pid": os.getpid(), "threads": torch.get_num_threads(), "born": time.time_ns()}

def broken_state():
    raise ModelFolderError("no model there; give another --model.")

def square(state, item):
    if item < 0:
        raise InputError(f"{item} is negative; give a positive number.")
    if item == 13:
        raise KeyError("thirteen")
    return item * item

def where(state, item):
    time.sleep(0.05)
    return (state["pid"], state["threads"], state["born"])

def process(state, item):
    return os.getpid()

def die_once(folder, item):
    """Kill the worker over item 2 the first time."""
    mark = pathlib.Path(folder) / "died"
    if item == 2 and not mark.exists():
        mark.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return item

def die_always(state, item):
    if item == 2:
        os._exit(7)
    return item

def slow(state, item):
    if item > 0:
        time.sleep(600)
    return item

def unpicklable(state, item):
    return (lambda: 0) if item == 1 else item
'''


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """A module that worker processes can import."""
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "items_test_jobs.py").write_text(JOBS)
    sys.path.insert(0, str(folder))
    yield importlib.import_module("items_test_jobs")
    sys.path.remove(str(folder))
    sys.modules.pop("items_test_jobs")


def nothing() -> None:
    return None


def facts(results: list[ItemResult[Any]]) -> list[tuple[Any, ...]]:
    return [(r.index, r.value, r.failure and (r.failure.code, r.failure.reason)) for r in results]


EXPECTED = [
    (0, 9, None),
    (1, None, ("EQV-INPUT", "-1 is negative; give a positive number.")),
    (2, 4, None),
    (3, None, ("EQV-BUG", "This is a bug of equivox: KeyError: 'thirteen' (--debug shows where).")),
    (4, 1, None),
]
ITEMS = [3, -1, 2, 13, 1]


@pytest.mark.parametrize("workers", [1, 2])
def test_results_and_failures_come_in_the_order_of_the_items(jobs: ModuleType, workers: int) -> None:
    seen: list[int] = []
    results = map_items(
        jobs.square, ITEMS, initializer=jobs.state, workers=workers, on_done=lambda result: seen.append(result.index)
    )
    assert facts(results) == EXPECTED
    assert sorted(seen) == [0, 1, 2, 3, 4]
    assert results[3].failure is not None
    assert "items_test_jobs.py" in results[3].failure.trace


def test_each_worker_makes_its_state_once_and_computes_with_one_thread(jobs: ModuleType) -> None:
    values = [r.value for r in map_items(jobs.where, list(range(6)), initializer=jobs.torch_state, workers=2)]
    assert len({value[0] for value in values if value}) == 2
    assert len({value[2] for value in values if value}) == 2
    assert {value[1] for value in values if value} == {1}
    assert os.getpid() not in {value[0] for value in values if value}


def test_no_more_workers_than_items_are_started(jobs: ModuleType) -> None:
    (result,) = map_items(jobs.process, [0], initializer=jobs.state, workers=8)
    assert result.value not in (None, os.getpid())


def test_a_dead_worker_costs_its_item_one_retry(jobs: ModuleType, tmp_path: Path) -> None:
    import functools

    initializer = functools.partial(str, str(tmp_path))
    results = map_items(jobs.die_once, [0, 1, 2, 3], initializer=initializer, workers=2)
    assert [(r.value, r.attempts) for r in results] == [(0, 1), (1, 1), (2, 2), (3, 1)]


def test_an_item_that_kills_every_worker_fails_and_the_others_finish(jobs: ModuleType) -> None:
    results = map_items(jobs.die_always, [0, 1, 2, 3], initializer=jobs.state, workers=2)
    assert [r.value for r in results] == [0, 1, None, 3]
    assert results[2].failure is not None
    assert results[2].failure.code == "EQV-WORKER"
    assert "died over this input 2 times (exit code 7)" in results[2].failure.reason


@pytest.mark.parametrize("workers", [1, 2])
def test_without_a_state_the_run_ends_with_the_reason(jobs: ModuleType, workers: int) -> None:
    with pytest.raises(ModelFolderError, match="no model there"):
        map_items(jobs.square, ITEMS, initializer=jobs.broken_state, workers=workers)


def test_a_value_that_cannot_travel_fails_alone(jobs: ModuleType) -> None:
    results = map_items(jobs.unpicklable, [0, 1, 2], initializer=jobs.state, workers=2)
    assert [r.value for r in results] == [0, None, 2]
    assert results[1].failure is not None


def test_what_is_done_already_is_not_run_again(jobs: ModuleType) -> None:
    results = map_items(
        jobs.square, ITEMS, initializer=jobs.state, resume=lambda item: 99 if item in (-1, 13) else None
    )
    assert [(r.value, r.resumed, r.attempts) for r in results] == [
        (9, False, 1), (99, True, 0), (4, False, 1), (99, True, 0), (1, False, 1),
    ]  # fmt: skip


def test_nothing_is_prepared_when_all_is_done(jobs: ModuleType) -> None:
    results = map_items(jobs.square, ITEMS, initializer=jobs.broken_state, resume=lambda item: item, workers=2)
    assert [r.value for r in results] == ITEMS


def test_an_interrupt_in_this_process_keeps_what_was_finished(jobs: ModuleType) -> None:
    def stop_at(result: ItemResult[int]) -> None:
        if result.index == 2:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        map_items(jobs.square, ITEMS, initializer=jobs.state, on_done=stop_at)
    assert facts(caught.value.results) == EXPECTED[:3]


def test_an_interrupt_stops_the_workers_and_keeps_what_was_finished(jobs: ModuleType) -> None:
    def stop(result: ItemResult[int]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        map_items(jobs.slow, [0, 1, 2, 3], initializer=jobs.state, workers=2, on_done=stop)
    assert [r.value for r in caught.value.results] == [0]


def test_ctrl_c_on_the_whole_group_ends_the_run_once(jobs: ModuleType, tmp_path: Path) -> None:
    """As a terminal does it: SIGINT to the parent and to its workers."""
    script = tmp_path / "run.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(Path(jobs.__file__ or '').parent)!r})\n"
        "import items_test_jobs as jobs\n"
        "from equivox.run.items import Interrupted, map_items\n"
        "if __name__ == '__main__':\n"
        "    try:\n"
        "        map_items(jobs.slow, [0, 1, 2, 3], initializer=jobs.state, workers=2,\n"
        "                  on_done=lambda r: print('done', r.index, flush=True))\n"
        "    except Interrupted as stopped:\n"
        "        print('kept', [r.index for r in stopped.results], flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell starts `command &` deaf to it
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "done 0\n"
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert out == "kept [0]\n"
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"workers": 0}, "--workers is 0"),
        ({"threads": -1}, "--threads is -1"),
        ({"workers": 2, "scheduler": "tcp://127.0.0.1:1"}, "exclude each other"),
    ],
)
def test_wrong_numbers_are_configuration_errors(jobs: ModuleType, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        map_items(jobs.square, ITEMS, initializer=jobs.state, **options)


def test_work_that_cannot_travel_is_said_before_anything_starts() -> None:
    with pytest.raises(TypeError, match="cannot be sent to a worker"):
        map_items(lambda state, item: item, [1, 2], initializer=nothing, workers=2)


def test_without_dask_the_sentence_names_the_extra(jobs: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtraError, match=r"equivox\[cluster\]"):
        map_items(jobs.square, ITEMS, initializer=jobs.state, scheduler="tcp://127.0.0.1:1")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class TestCluster:
    @pytest.fixture(scope="class")
    def address(self, jobs: ModuleType) -> Iterator[str]:
        """A scheduler with two worker processes on this machine."""
        distributed = pytest.importorskip("distributed")
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = str(Path(jobs.__file__ or "").parent)
        cluster = distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs=50
        )
        try:
            yield cluster.scheduler_address
        finally:
            cluster.close()
            if before is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = before

    def test_a_cluster_gives_the_same_results(self, jobs: ModuleType, address: str) -> None:
        seen: list[int] = []
        results = map_items(
            jobs.square, ITEMS, initializer=jobs.state, scheduler=address, on_done=lambda r: seen.append(r.index)
        )
        assert facts(results) == EXPECTED
        assert sorted(seen) == [0, 1, 2, 3, 4]

    def test_each_worker_of_a_cluster_makes_its_state_once(self, jobs: ModuleType, address: str) -> None:
        results = map_items(jobs.where, list(range(8)), initializer=jobs.torch_state, scheduler=address)
        values = [r.value for r in results]
        assert 1 <= len({value[2] for value in values if value}) <= 2
        assert {value[1] for value in values if value} == {1}

    def test_without_a_state_the_run_on_a_cluster_ends_with_the_reason(self, jobs: ModuleType, address: str) -> None:
        with pytest.raises(ModelFolderError, match="no model there"):
            map_items(jobs.square, ITEMS, initializer=jobs.broken_state, scheduler=address)

    def test_a_dead_worker_of_a_cluster_costs_no_more_than_a_retry(
        self, jobs: ModuleType, address: str, tmp_path: Path
    ) -> None:
        import functools

        results = map_items(
            jobs.die_once, [0, 1, 2, 3], initializer=functools.partial(str, str(tmp_path)), scheduler=address
        )
        assert [r.value for r in results] == [0, 1, 2, 3]


def test_a_scheduler_that_does_not_answer_is_one_sentence(jobs: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("equivox.run.cluster.SECONDS_TO_CONNECT", 1)
    with pytest.raises(ConfigError, match=r"--scheduler tcp://127\.0\.0\.1:1 does not answer"):
        map_items(jobs.square, ITEMS, initializer=jobs.state, scheduler="tcp://127.0.0.1:1")


def test_input_errors_keep_their_code(jobs: ModuleType) -> None:
    (result,) = map_items(jobs.square, [-5], initializer=jobs.state)
    assert result.failure is not None
    assert result.failure.code == InputError.code
