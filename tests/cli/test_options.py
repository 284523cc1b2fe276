from __future__ import annotations

from dataclasses import fields

from cyclopts import App

from equivox.cli.options import Output, Run


def test_options_come_from_the_dataclass_with_their_defaults() -> None:
    app = App(result_action="return_value")
    got: list[Run] = []

    @app.default
    def command(*, run: Run | None = None) -> None:
        got.append(run or Run())

    app([], exit_on_error=False)
    app("--workers 3 --scheduler tcp://a:1 --resume --json --device cuda:1", exit_on_error=False)
    assert got[0] == Run()
    assert got[1] == Run(workers=3, scheduler="tcp://a:1", resume=True, json=True, device="cuda:1")


def test_the_options_go_whole_into_the_record() -> None:
    assert set(Run().as_dict()) == {field.name for field in fields(Run)}
    assert Output().as_dict() == {"overwrite": False, "json": False, "quiet": False}
