"""The rules of the house that no linter holds: layers, sizes, names, no network, a stable public surface."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import equivox

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "equivox"
MODULES = sorted(PACKAGE.rglob("*.py"))
SURFACE = ROOT / "tests" / "public_surface.txt"
NETWORK = {
    "urllib.request", "urllib3", "requests", "httpx", "aiohttp", "http.client", "ftplib", "smtplib", "socket", "ssl",
    "torch.hub", "huggingface_hub", "wget", "gdown", "boto3", "paramiko", "webbrowser", "telnetlib", "xmlrpc.client",
}  # fmt: skip
DOWNLOADS = {"load_state_dict_from_url", "download_url_to_file", "urlopen", "urlretrieve", "fetch_atlas", "load_mni152"}
UNPICKLERS = {"pickle", "dill", "cloudpickle", "joblib", "shelve"}
OWN_PROCESSES = {"equivox/run/items.py", "equivox/run/processes.py", "equivox/run/cluster.py"}
TRAINING = {"equivox/run/seeds.py", "equivox/run/training.py"}
"""A training command owns its process; Lightning's dropout and torch's default initialisation know no generator."""
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "core", "base", "tools", "stuff"}
LONGEST_FILE = 400


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE.parent).as_posix()


@pytest.fixture(scope="module")
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text(encoding="utf-8"), filename=str(path)) for path in MODULES}


def imported(tree: ast.Module) -> Iterator[str]:
    """Every module or name that a file imports, at any depth, with dots."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_imports_only_go_down() -> None:
    tool = shutil.which("lint-imports", path=str(Path(sys.executable).parent)) or shutil.which("lint-imports")
    if tool is None:
        pytest.skip("import-linter is not installed (extra dev)")
    done = subprocess.run([tool, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_opens_a_network_connection(trees: dict[Path, ast.Module]) -> None:
    found = [
        f"{name_of(path)}: {module}"
        for path, tree in trees.items()
        for module in imported(tree)
        if module in NETWORK or any(module.startswith(f"{name}.") for name in NETWORK)
    ]
    found += [
        f"{name_of(path)}: {name}"
        for path, tree in trees.items()
        for node in ast.walk(tree)
        for name in [node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""]
        if name in DOWNLOADS
    ]
    assert found == []


def test_only_the_cluster_file_knows_dask(trees: dict[Path, ast.Module]) -> None:
    known = {
        name_of(p) for p, tree in trees.items() if {"dask", "distributed"} & {m.split(".")[0] for m in imported(tree)}
    }
    assert known == {"equivox/run/cluster.py"}


def test_nothing_of_a_stranger_is_unpickled(trees: dict[Path, ast.Module]) -> None:
    """torch.load only with weights_only=True; pickle only between our own processes."""
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[0] in UNPICKLERS:
                assert name_of(path) in OWN_PROCESSES, f"{name_of(path)}:{node.lineno} pickles"
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                safe = [k for k in node.keywords if k.arg == "weights_only" and ast.unparse(k.value) == "True"]
                assert safe, f"{name_of(path)}:{node.lineno} calls torch.load without weights_only=True"
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"np.load", "numpy.load"}:
                unsafe = [k for k in node.keywords if k.arg == "allow_pickle" and ast.unparse(k.value) != "False"]
                assert not unsafe, f"{name_of(path)}:{node.lineno} lets numpy unpickle"


def test_the_library_prints_nothing_outside_the_command_line(trees: dict[Path, ast.Module]) -> None:
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path, tree in trees.items()
        if PACKAGE / "cli" not in path.parents
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert found == []


def test_every_module_says_what_it_is(trees: dict[Path, ast.Module]) -> None:
    assert [name_of(path) for path, tree in trees.items() if not ast.get_docstring(tree)] == []


def test_no_file_is_two_things() -> None:
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE} == {}


def test_every_room_has_a_name() -> None:
    assert [name_of(path) for path in MODULES if {path.stem, path.parent.name} & EMPTY_NAMES] == []


def test_random_numbers_come_from_a_generator(trees: dict[Path, ast.Module]) -> None:
    """No global seeding outside training commands, no default dtype changed behind the user's back."""
    forbidden = {"torch.manual_seed", "np.random.seed", "numpy.random.seed", "random.seed", "torch.set_default_dtype"}
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in forbidden
        and not (name_of(path) in TRAINING and ast.unparse(node.func) == "torch.manual_seed")
    ]
    assert found == []


def surface() -> str:
    """One line per public name: its signature, or its kind."""
    lines = []
    for name in sorted(equivox.__all__):
        public = getattr(equivox, name)
        if inspect.isclass(public) or inspect.isfunction(public):
            lines.append(f"{name}{inspect.signature(inspect.unwrap(public))}")
        else:
            lines.append(f"{name}: {type(public).__name__}")
    return "\n".join(lines) + "\n"


def test_the_public_surface_changes_only_on_purpose() -> None:
    """After a change that is meant: ``EQUIVOX_WRITE_SURFACE=1 pytest tests/test_house.py``, and a line in CHANGELOG."""
    import os

    if os.environ.get("EQUIVOX_WRITE_SURFACE"):
        SURFACE.write_text(surface(), encoding="utf-8")
    assert surface() == SURFACE.read_text(encoding="utf-8")


def test_every_public_name_resolves_and_is_documented() -> None:
    assert sorted(equivox.__all__) == dir(equivox)
    for name, module in equivox._PUBLIC.items():
        public = getattr(importlib.import_module(module), name)
        assert inspect.getdoc(public), name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        equivox.nothing  # noqa: B018


def test_the_version_is_told_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == equivox.__version__


def test_every_error_code_is_explained() -> None:
    used = {code for path in MODULES for code in re.findall(r'"(EQV-[A-Z]+)"', path.read_text(encoding="utf-8"))}
    page = (ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    assert used == set(re.findall(r"^\| (EQV-[A-Z]+) \|", page, re.MULTILINE))


def test_no_name_is_used_that_nothing_defines() -> None:
    """The linter's own rule is off, because it takes the axes in ``Float[Tensor, "batch x y z"]`` for names."""
    tool = Path(sys.executable).parent / "ruff"
    command = [tool, "check", "--isolated", "--no-cache", "--select", "F821", "--output-format", "json", "src", "tests"]
    found = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout)
    undefined = []
    for one in found:
        line = Path(one["filename"]).read_text().splitlines()[one["location"]["row"] - 1]
        name = one["message"].split("`")[1]
        if not any(re.search(rf"\b{name}\b", text) for text in re.findall(r'"([^"]*)"', line)):
            undefined.append(f"{one['filename']}:{one['location']['row']}: {name}")
    assert not undefined


def test_no_file_knows_anybodys_machine() -> None:
    """Absolute paths of a home or a workplace: in settings that a run left behind, in docs, in code."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if listed.returncode:
        pytest.skip("not a git checkout: what belongs to the project is not known")
    place = re.compile(rb"(?<![\w.])/(?:(?:work|root)/|(?:home|Users)/[\w.-]+)|[A-Z]:\\+Users\\")
    assert place.search(b'"/' + b'home/me"')
    assert not place.search(b"../" + b"work/x https://a.org/" + b"home/b")
    found = []
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if not name or not path.is_file():
            continue
        content = path.read_bytes()
        if b"\0" in content:
            continue  # no text
        for number, line in enumerate(content.splitlines(), start=1):
            seen = place.search(line)
            if seen:
                found.append(f"{name}:{number}: {seen.group().decode()}")
    assert found == []
