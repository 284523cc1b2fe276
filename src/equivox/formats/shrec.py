"""SHREC17 (ShapeNet Core55) on disk: tables of models, folders of meshes, and rank lists.

Ids, synset ids and sub-synset ids keep their leading zeros: they are text. Models that a table names and the folder
lacks, and models that cannot be read (some are known to be empty), stay in the answer with a reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from equivox.errors import InputError
from equivox.formats.atomic import write_text
from equivox.formats.meshes import MESH_ENDINGS
from equivox.formats.tables import read_table

COLUMNS = ("id", "synsetId", "subSynsetId", "modelId", "split")
ID_DIGITS = 6
SYNSET_DIGITS = 8


@dataclass(frozen=True, slots=True)
class ShrecModel:
    """One line of a table: id (six digits), class, sub-class, the model's own name, split."""

    id: str
    synset: str
    subsynset: str
    model: str
    split: str

    @property
    def label(self) -> tuple[str, str, str]:
        """Class, sub-class and split, as :func:`equivox.metrics.retrieval.evaluate_retrieval` takes them."""
        return (self.synset, self.subsynset, self.split)


@dataclass(frozen=True, slots=True)
class ShrecFile:
    """A model of a table and its mesh, or why it has none."""

    entry: ShrecModel
    path: Path | None
    problem: str = ""


def padded_id(text: str) -> str:
    """An id with its leading zeros: ``"27"`` is ``"000027"``."""
    return text.strip().zfill(ID_DIGITS)


def read_truth(path: Path | str) -> tuple[ShrecModel, ...]:
    """Read a table of models (``train.csv``, ``val.csv``, ``test_truth.csv``), in the file's order, which matters.

    Raises
    ------
    InputError
        If the file is missing, empty or damaged, a column is missing, an id stands twice, or an id is no number.
    """
    rows = read_table(path, required=COLUMNS, unique=("id",))
    if not rows:
        raise InputError(f"{path} names no model; give the whole table.")
    models: dict[str, ShrecModel] = {}
    for row in rows:
        name = padded_id(row.text("id"))
        synset, subsynset = row.text("synsetId"), row.text("subSynsetId")
        for column, text in (("id", name), ("synsetId", synset), ("subSynsetId", subsynset)):
            if not text.isdigit():
                raise InputError(f"{row.where}, column {column}, holds {text!r}; digits are needed.")
        if name in models:
            raise InputError(f"{row.where}: id {name} stood already; keep one of them.")
        synset, subsynset = synset.zfill(SYNSET_DIGITS), subsynset.zfill(SYNSET_DIGITS)
        models[name] = ShrecModel(name, synset, subsynset, row.cells["modelId"].strip(), row.text("split"))
    return tuple(models.values())


def synsets(models: Sequence[ShrecModel]) -> tuple[str, ...]:
    """Classes in the order of their index: synset ids, sorted."""
    return tuple(sorted({model.synset for model in models}))


def find_models(folder: Path | str, models: Sequence[ShrecModel]) -> tuple[list[ShrecFile], list[Path]]:
    """Match a table with a folder of meshes (``000123.obj``).

    Returns
    -------
    tuple
        One entry per model of the table, with its file or the reason why there is none; and the meshes of the folder
        that no line of the table names.

    Raises
    ------
    InputError
        If the folder is missing, or holds the mesh of no model at all.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            f"{folder} {'is no folder' if folder.exists() else 'does not exist'}; give a folder of meshes."
        )
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in MESH_ENDINGS and not path.name.startswith("."):
            files.setdefault(padded_id(path.stem), path)
    found = []
    for model in models:
        if model.id not in files:
            found.append(ShrecFile(model, None, f"{folder} holds no mesh of model {model.id}; the table names it."))
            continue
        path = files.pop(model.id)
        empty = path.stat().st_size == 0
        problem = f"{path} is empty (0 bytes); models like this are known in the collection." if empty else ""
        found.append(ShrecFile(model, None if empty else path, problem))
    if all(entry.path is None for entry in found):
        raise InputError(f"{folder} holds the mesh of none of the {len(models)} models of the table; check both.")
    return found, sorted(files.values())


def read_rank_lists(folder: Path | str) -> dict[str, list[str]]:
    """Read rank lists: one file per query, named by its id, one model a line, best first.

    Only the first word of a line counts (a distance may follow); empty lines are skipped; ids are padded with zeros.

    Raises
    ------
    InputError
        If the folder is missing or holds no list, a file is no text, or two files are of one query.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} {'is no folder' if folder.exists() else 'does not exist'}; give a folder of lists.")
    lists: dict[str, list[str]] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.is_file():
            continue
        query = padded_id(path.stem if path.suffix.lower() == ".txt" else path.name)
        if query in lists:
            raise InputError(f"{path}: query {query} has another list in {folder}; keep one of them.")
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            raise InputError(f"{path} is not a text file; a rank list has one model id a line.") from None
        lists[query] = [padded_id(line.split()[0]) for line in lines if line.strip()]
    if not lists:
        raise InputError(f"{folder} holds no rank list; one file per query is needed.")
    return lists


def write_rank_lists(folder: Path | str, lists: Mapping[str, Sequence[str]]) -> None:
    """Write one file per query, as the organisers' program reads them."""
    for query, models in lists.items():
        write_text(Path(folder) / padded_id(query), "".join(f"{padded_id(model)}\n" for model in models))
