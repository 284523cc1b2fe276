"""CIFAR's own files, read without unpickling anything."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from equivox.errors import InputError
from equivox.formats.cifar import is_cifar, read_cifar

IMAGES = np.random.default_rng(1).integers(0, 256, (12, 3072), dtype=np.uint8)
LABELS = [int(number) for number in np.arange(12) % 10]


def write_pickles(folder: Path, protocol: int, *, old: bool) -> None:
    """As the authors' files: keys are texts of Python 2 (bytes here), arrays are NumPy's."""
    key = (lambda name: name.encode()) if old else (lambda name: name)
    for name, part in (("data_batch_1", slice(0, 8)), ("test_batch", slice(8, 12))):
        table = {
            key("batch_label"): b"one of five",
            key("labels"): LABELS[part],
            key("data"): IMAGES[part],
            key("filenames"): [b"a.png"] * len(LABELS[part]),
        }
        (folder / name).write_bytes(pickle.dumps(table, protocol=protocol))


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("old", [True, False])
def test_pickled_batches_are_read(protocol: int, old: bool, tmp_path: Path) -> None:
    write_pickles(tmp_path, protocol, old=old)
    names = [f"thing{number}" for number in range(10)]
    (tmp_path / "batches.meta").write_bytes(
        pickle.dumps({b"label_names": [name.encode() for name in names]}, protocol=2)
    )
    assert is_cifar(tmp_path)
    found = read_cifar(tmp_path)
    torch.testing.assert_close(found.images, torch.from_numpy(IMAGES).reshape(-1, 3, 32, 32))
    assert found.labels.tolist() == LABELS
    assert found.is_test == (False,) * 8 + (True,) * 4
    assert found.classes == tuple(names)


def test_a_python_2_pickle_is_read(tmp_path: Path) -> None:
    """Protocol 0 and 2 of Python 2 write texts as STRING and BINSTRING; the array's bytes come as such a text."""
    raw = IMAGES[:1].tobytes()
    content = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05"
        b"(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + len(raw).to_bytes(4, "little") + raw + b"tbU\x06labelsq\x08]q\x09K\x07au."
    )  # fmt: skip
    assert pickle.loads(content, encoding="latin1")["labels"] == [7]
    (tmp_path / "test_batch").write_bytes(content)
    found = read_cifar(tmp_path)
    assert found.labels.tolist() == [7]
    torch.testing.assert_close(found.images.flatten(), torch.from_numpy(IMAGES[0]))
    assert found.classes[7] == "horse"


def test_binary_batches_are_read(tmp_path: Path) -> None:
    records = np.concatenate([np.array(LABELS, dtype=np.uint8)[:, None], IMAGES], axis=1)
    (tmp_path / "data_batch_2.bin").write_bytes(records[:9].tobytes())
    (tmp_path / "test_batch.bin").write_bytes(records[9:].tobytes())
    (tmp_path / "batches.meta.txt").write_text("\n".join(f"kind{n}" for n in range(10)) + "\n\n")
    found = read_cifar(tmp_path)
    assert found.labels.tolist() == LABELS
    torch.testing.assert_close(found.images.flatten(1), torch.from_numpy(IMAGES))
    assert found.classes[3] == "kind3"
    hundred = tmp_path / "hundred"
    hundred.mkdir()
    fine = np.concatenate([np.zeros((12, 1), np.uint8), np.arange(60, 72, dtype=np.uint8)[:, None], IMAGES], axis=1)
    (hundred / "train.bin").write_bytes(fine.tobytes())
    assert read_cifar(hundred).labels.tolist() == list(range(60, 72))


class Harmful:
    """What a stranger's file could hold."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.place}",)


@pytest.mark.parametrize("protocol", [2, 4])
def test_nothing_in_a_file_can_run(protocol: int, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    table = {b"data": IMAGES, b"labels": LABELS, b"more": Harmful(mark)}
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(table, protocol=protocol))
    with pytest.raises(InputError, match=r"asks for (posix|nt)\.system, which no batch of CIFAR needs"):
        read_cifar(tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [(pickle.dumps({b"data": IMAGES, b"labels": LABELS}, protocol=2)[:-3000], "is no whole batch"),
     (pickle.dumps({b"data": IMAGES, b"labels": LABELS[:-1]}, protocol=2), "no list of 12 labels"),
     (pickle.dumps({b"data": IMAGES.astype(np.float32), b"labels": LABELS}, protocol=2), "in a way that no batch"),
     (pickle.dumps({b"labels": LABELS}, protocol=2), "no array of images"), (pickle.dumps([1, 2]), "holds list"),
     (b"\x00\x01", "is no whole batch"), (b"", "is no whole batch")],
)  # fmt: skip
def test_broken_batches_are_one_sentence(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "data_batch_1").write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_cifar(tmp_path)


def test_a_cut_binary_batch_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1.bin").write_bytes(b"\0" * 5000)
    with pytest.raises(InputError, match="no whole number of records of 3073"):
        read_cifar(tmp_path)
    assert not is_cifar(tmp_path / "nowhere")
