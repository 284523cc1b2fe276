from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from equivox.errors import ConfigError, InputError, OutputError
from equivox.tasks.encode.data import open_brain
from equivox.tasks.encode.finetune import finetune_encoder
from equivox.tasks.encode.model import load_encode_model
from equivox.tasks.encode.train import TrainRun, pretrain_encoder
from equivox.tasks.encode.train_config import PRESETS, FinetuneConfig, PretrainConfig, pretrain_preset
from equivox.tasks.encode.train_data import find_parts, fit_scale, target_rows

SMALL = {
    "architecture": "brain_encoder", "fields": [[3, 2, 1], [4, 2, 1], [4, 2, 2]], "kernel_sizes": [3, 3, 3],
    "polar": 8, "axial": 4, "scalars": 10, "pseudoscalars": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def brains(
    tmp_path_factory: pytest.TempPathFactory, brain_values: Callable[..., np.ndarray], save: Callable[..., Path]
) -> Path:
    """Six synthetic brains at 8 mm, a table with ages, sexes, splits; one person twice."""
    folder = tmp_path_factory.mktemp("brains")
    rows = [("id", "session", "path", "age", "sex", "diagnosis", "split")]
    for number in range(6):
        values = brain_values((22, 26, 22), 8.0, number)
        save(folder / f"b{number}.nii.gz", values, np.diag([8.0, 8.0, 8.0, 1.0]))
        person = "p0" if number < 2 else f"p{number}"
        split = "train" if number < 4 else "val"
        rows.append((
            person, f"s{number}", f"b{number}.nii.gz", str(30 + 7 * number), "FM"[number % 2], "AC"[number % 2], split,
        ))  # fmt: skip
    with (folder / "subjects.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return folder / "subjects.csv"


def small(name: str, **values: object) -> PretrainConfig:
    preset = pretrain_preset(name)
    network = preset.network if preset.network["architecture"] != "brain_encoder" else SMALL
    return preset.with_values(
        **{"side": 16, "voxel_size_mm": 13.2, "epochs": 1, "batch_size": 4, "network": network, **values}
    )


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_trains_and_leaves_a_model(name: str, brains: Path, tmp_path: Path) -> None:
    trained = pretrain_encoder([brains], small(name), TrainRun(out=tmp_path / "out", device="cpu"))
    assert trained.counts == {"training": 4, "validation": 2}
    assert np.isfinite(list(trained.values.values())).all()
    terms = set(small(name).terms)
    assert {f"train_{term}" for term in terms} <= set(trained.values)
    model = load_encode_model(tmp_path / "out" / "model")
    assert model.side == 16
    certificate = trained.model.certificate()
    equivariant = small(name).network["architecture"] == "brain_encoder"
    assert certificate["rotations_hold"] is equivariant  # the plain networks must fail
    assert certificate["mirror_holds"] is equivariant
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["outcome"] == "done"


def test_a_resumed_run_is_the_run_that_was_not_cut(brains: Path, tmp_path: Path) -> None:
    config = small("byol", epochs=2, batch_size=2)
    whole = pretrain_encoder([brains], config, TrainRun(out=tmp_path / "whole", device="cpu", seed=3))

    def stop(epoch: int, row: object) -> None:
        if epoch == 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain_encoder([brains], config, TrainRun(out=tmp_path / "cut", device="cpu", seed=3), progress=stop)
    again = TrainRun(out=tmp_path / "cut", device="cpu", seed=3, resume=True)
    cut = pretrain_encoder([brains], config, again)
    assert cut.model.config["weights_sha256"] == whole.model.config["weights_sha256"]
    assert (tmp_path / "cut" / "curves.csv").read_text() == (tmp_path / "whole" / "curves.csv").read_text()
    with pytest.raises(ConfigError, match="begun with another lr"):
        pretrain_encoder([brains], config.with_values(lr=1e-4), again)
    with pytest.raises(OutputError, match="--overwrite"):
        pretrain_encoder([brains], config, TrainRun(out=tmp_path / "cut", device="cpu", seed=3))


def test_mixed_precision_and_sessions(brains: Path, tmp_path: Path) -> None:
    config = small("brain", pairs="sessions")
    trained = pretrain_encoder([brains], config, TrainRun(out=tmp_path, device="cpu", precision="bf16"))
    assert np.isfinite(list(trained.values.values())).all()
    assert trained.model.certificate()["rotations_hold"]


def test_finetuning_reads_targets_and_predicts(brains: Path, tmp_path: Path) -> None:
    pretrained = pretrain_encoder([brains], small("vicreg"), TrainRun(out=tmp_path / "pre", device="cpu"))
    config = FinetuneConfig(targets=("age", "sex", "diagnosis"), epochs=12, batch_size=4, lr=0.02, strength=0.0)
    trained = finetune_encoder(
        [brains], str(pretrained.model.path), config, TrainRun(out=tmp_path / "fine", device="cpu")
    )
    with (tmp_path / "fine" / "predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["id"] for row in rows] == ["p4", "p5"]
    assert {"age", "age_predicted", "sex", "sex_predicted", "diagnosis_predicted"} <= set(rows[0])
    assert all(30 < float(row["age_predicted"]) < 80 for row in rows)
    first, *_, last = csv.DictReader((tmp_path / "fine" / "curves.csv").read_text().splitlines())
    assert float(last["train_loss"]) < 0.7 * float(first["train_loss"])
    assert trained.model.config["output"]["diagnoses"] == ["A", "C"]
    assert load_encode_model(tmp_path / "fine" / "model").side == 16
    frozen = finetune_encoder(
        [brains], str(pretrained.model.path), FinetuneConfig(epochs=1, encoder_lr=0.0),
        TrainRun(out=tmp_path / "frozen", device="cpu"),
    )  # fmt: skip
    before, after = pretrained.model.networks()["encoder"], frozen.model.networks()["encoder"]
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))


def test_persons_never_lie_in_both_parts(brains: Path, tmp_path: Path) -> None:
    text = brains.read_text().replace("p0,s1,b1.nii.gz,37,M,C,train", "p0,s1,b1.nii.gz,37,M,C,val")
    leaky = brains.with_name("leaky.csv")
    leaky.write_text(text)
    with pytest.raises(InputError, match="p0 is in training and in validation"):
        find_parts([leaky], share_validation=0.2, seed=0)
    drawn = brains.with_name("drawn.csv")
    drawn.write_text("\n".join(line.rpartition(",")[0] for line in brains.read_text().splitlines()))
    for seed in range(4):
        parts = find_parts([drawn], share_validation=0.4, seed=seed)
        people = [{one.id for one in part.subjects} for part in (parts.training, parts.validation)]
        assert not people[0] & people[1]
        assert len(parts.training) + len(parts.validation) == 6
    leaky.unlink()
    drawn.unlink()


def test_a_split_without_validation_keeps_some_of_the_training(brains: Path) -> None:
    text = brains.read_text().replace(",val", ",test")
    table = brains.with_name("no_val.csv")
    table.write_text(text)
    parts = find_parts([table], share_validation=0.3, seed=0)
    people = [{one.id for one in part.subjects} for part in (parts.training, parts.validation)]
    assert not people[0] & people[1]
    assert people[0] | people[1] == {"p0", "p2", "p3"}, "the test takes no part"
    assert any("no scans for validation" in note for note in parts.notes)
    table.write_text(text.replace(",train", ",test"))
    with pytest.raises(InputError, match="no scans for training"):
        find_parts([table], share_validation=0.3, seed=0)
    table.unlink()


def test_targets_are_scaled_by_the_training_scans_alone(brains: Path) -> None:
    parts = find_parts([brains], share_validation=0.2, seed=0)
    scale, weights = fit_scale(parts.training, ("age", "sex", "diagnosis"))
    assert scale.age_mean == pytest.approx(np.mean([30, 37, 44, 51]))
    assert scale.age_sd == pytest.approx(np.std([30, 37, 44, 51], ddof=1))
    assert weights["sex"] == (1.0, 1.0)
    rows = target_rows(parts.validation, ("age", "diagnosis"), scale)
    assert float(rows[0]["age"]) == pytest.approx((58 - scale.age_mean) / scale.age_sd)
    assert [float(row["diagnosis"]) for row in rows] == [0.0, 1.0]


def test_settings_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'simclr'"):
        pretrain_preset("simcrl")
    with pytest.raises(ConfigError, match="unknown setting 'epoch'"):
        pretrain_preset("brain").with_values(epoch=3)
    with pytest.raises(ConfigError, match="no term 'direktion'"):
        pretrain_preset("brain").with_values(terms={"direktion": 1.0})
    with pytest.raises(ConfigError, match="no target 'weight'"):
        FinetuneConfig(targets=("weight",))
    with pytest.raises(ConfigError, match="goes alone"):
        pretrain_preset("soe_published").with_values(terms={"published": 1.0, "vicreg": 1.0})


@pytest.mark.parametrize("name", ["vicreg", "masked"])
def test_invariants_are_standardised_over_the_training_scans(name: str, brains: Path, tmp_path: Path) -> None:
    """Raw, pooled invariants hardly vary between brains; an objective on them would learn their common mean."""
    trained = pretrain_encoder([brains], small(name), TrainRun(out=tmp_path, device="cpu"))
    encoder = trained.model.networks()["encoder"]
    rows = []
    scans = find_parts([brains], share_validation=0.2, seed=0).training
    for subject in scans.subjects:
        assert subject.path is not None
        brain = open_brain(subject.path, voxel_size_mm=13.2).sample(side=16)
        with torch.no_grad():
            polar, _, statistics = encoder.pooled(brain.volume[None], brain.mask[None])
            rows.append((encoder.head.statistics(polar, statistics)[0] - encoder.head.shift) / encoder.head.scale)
    standard = torch.stack(rows)
    moving = torch.isfinite(encoder.head.scale)
    assert moving.sum() > 20
    if name == "masked":  # only fields learn; what is pooled from them is standardised in the end
        assert standard[:, moving].mean(0).abs().max() < 1e-3
        assert (standard[:, moving].std(0) - 1.0).abs().max() < 1e-3
    else:  # standardised at first; one step has moved it little
        assert standard[:, moving].mean(0).abs().median() < 0.5
        assert 0.5 < standard[:, moving].std(0).median() < 2.0
