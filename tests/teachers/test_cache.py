"""Kept features take the teacher's place, and only where they are the teacher's."""

from collections import namedtuple

import pytest
import torch
from hydra.utils import instantiate

from maskpre.build import build_model
from maskpre.config import compose
from maskpre.data import records
from maskpre.errors import ConfigError, UserError
from maskpre.ops.noise import KeyedNoise
from maskpre.run_folder import open_run_folder
from maskpre.teachers.frozen import FrozenTeacher
from maskpre.teachers.recorder import frozen_passes, weights_digest
from maskpre.training import build_training

SMALL = ["data.image_size=16", "data.batch_size=8", "data.num_workers=0", "data.crops_per_sample=2"]
STUDENT = ["encoder.embed_dim=16", "encoder.depth=2", "encoder.num_heads=2"]
DECODER = ["predictor.embed_dim=8", "predictor.depth=1", "predictor.num_heads=2"]
TEACHER = ["teacher=timm", "teacher.embed_dim=16", "teacher.depth=2", "teacher.num_heads=2"]
SYSTEMS = {
    "maskalign": ["experiment=maskalign", "target.layers=mean"],
    "mrmae": ["experiment=mrmae", *DECODER],
    "mae under attention": ["experiment=mae", "masking=attentive", *DECODER],
    "convnet's features": ["experiment=mrmae", *DECODER, "teacher.name=resnet18"],
}
SIZELESS = [f"teacher.{name}=null" for name in ("patch_size", "embed_dim", "depth", "num_heads")]
NUM_SAMPLES = 48

Made = namedtuple("Made", "cfg model data rows")


def overrides_of(system, pictures, folder, *more):
    data = ["data=folder", f"data.root={pictures / 'train'}", "data.labels=folders"]
    sizeless = [*SIZELESS, "data.image_size=64", "encoder.patch_size=32"] if "convnet" in system else []
    cache = ["teacher_cache=disk", f"teacher_cache.folder={folder}"]
    return [*SYSTEMS[system], *data, *SMALL, *STUDENT, *TEACHER, *sizeless, *cache, *more]


def make(system, pictures, folder, *more):
    """A model, its data, and the rows of all crops."""
    arguments = overrides_of(system, pictures, folder, *more)
    # The group must be chosen before its entries are changed.
    arguments.sort(key=lambda one: not one.startswith(("experiment=", "teacher=", "data=", "teacher_cache=")))
    cfg = compose(arguments)
    torch.manual_seed(0)
    model, data = build_model(cfg), instantiate(cfg.data)
    rows = instantiate(cfg.teacher_cache).open(cfg, model, data, torch.device("cpu"))
    return Made(cfg, model, data, rows)


def step_of(made, batch, *, kept):
    made.model.recordings = frozen_passes(made.model) if kept else {}
    made.model.zero_grad()
    noise = KeyedNoise(0, batch["epoch"], batch["index"])
    step = made.model(batch, noise=noise, progress=0.0)
    step.total.backward()
    return step, [weight.grad for weight in made.model.parameters() if weight.grad is not None]


def batches_of(made):
    """The last batch of three epochs."""
    steps = 3 * made.data.steps_per_epoch
    transform = made.data.pretraining_transform
    loader = made.data.train_loader(
        num_steps=steps, start_step=steps - 1, transform=transform, beside=made.rows
    )
    return list(loader)


@pytest.mark.parametrize(
    ("system", "precision"),
    [*((system, "fp32") for system in SYSTEMS), ("maskalign", "fp16"), ("mrmae", "fp16"), ("mrmae", "bf16")],
)
def test_a_step_with_kept_features_is_the_step_with_the_teacher(
    system, precision, picture_folders, tmp_path, monkeypatch
) -> None:
    made = make(system, picture_folders, tmp_path, f"teacher_cache.precision={precision}")
    (batch,) = batches_of(made)
    live, gradients = step_of(made, batch, kept=False)
    monkeypatch.setattr(FrozenTeacher, "forward", lambda *_: pytest.fail("the teacher ran"))
    kept, others = step_of(made, batch, kept=True)
    assert torch.equal(live.plans["student"].keep, kept.plans["student"].keep)
    tolerance = {"fp32": 1e-6, "fp16": 1e-3, "bf16": 1e-2}[precision]
    torch.testing.assert_close(kept.total, live.total, rtol=tolerance, atol=0)
    for gradient, other in zip(gradients, others, strict=True):
        assert (gradient - other).norm() <= 10 * tolerance * gradient.norm() + 1e-9


@pytest.fixture
def counted(monkeypatch):
    """How many pictures the teacher has seen."""
    seen, forward = [], FrozenTeacher.forward

    def watch(self, x, *others):
        seen.append(len(x))
        return forward(self, x, *others)

    monkeypatch.setattr(FrozenTeacher, "forward", watch)
    return seen


def test_it_is_made_once_goes_on_after_an_interruption_and_says_its_size(
    picture_folders, tmp_path, monkeypatch, counted, capsys
) -> None:
    monkeypatch.setattr(records, "_SHARD_BYTES", 4000)
    first = make("mrmae", picture_folders, tmp_path)
    looks = sum(counted)
    assert looks > 2 * NUM_SAMPLES
    table = first.rows.reader.table
    files = sorted(table.folder.glob("rows-*.bin"))
    assert len(files) == table.num_shards > 3
    said = capsys.readouterr()
    assert f"{NUM_SAMPLES} samples x 2 crops x" in said.out
    assert f"{len(files)} of {len(files)} files to be made" in said.out
    assert "teacher features: " in said.err
    content = files[2].read_bytes()
    files[2].unlink()
    (table.folder / f".{files[2].name}.x.tmp").touch()
    counted.clear()
    make("mrmae", picture_folders, tmp_path, "data.batch_size=16", "optim.base_lr=1e-3")
    again = sum(counted)
    assert files[2].read_bytes() == content
    assert not list(table.folder.glob(".rows*"))
    counted.clear()
    make("mrmae", picture_folders, tmp_path)
    assert again - sum(counted) == len(table.rows(2))
    assert "all there" in capsys.readouterr().out


def test_what_changes_the_features_changes_the_folder(picture_folders, tmp_path) -> None:
    def folder(system, *more):
        return make(system, picture_folders, tmp_path, *more).rows.reader.table.folder

    changes = [
        ("mrmae",),
        ("mrmae", "teacher.norm_eps=1e-3"),
        ("mrmae", "data.seed=1"),
        ("mrmae", "data.crops_per_sample=1"),
        ("maskalign",),
    ]
    assert len({folder(*change) for change in changes}) == len(changes)


ALONE = {
    "name": "vit_tiny_patch16_224",
    "weights": None,
    "view_size": 16,
    "view_mean": [0.5] * 3,
    "view_std": [0.5] * 3,
    "patch_size": 8,
    "embed_dim": 16,
    "depth": 1,
    "num_heads": 2,
}


def test_other_weights_are_another_teachers() -> None:
    first, second = FrozenTeacher(**ALONE), FrozenTeacher(**ALONE)
    assert weights_digest(first) == weights_digest(second)
    with torch.no_grad():
        second.network.blocks[0].mlp.fc1.bias[0] += 1e-6
    assert weights_digest(first) != weights_digest(second)


def test_exchanged_pictures_are_noticed(picture_folders, tmp_path) -> None:
    table = make("mrmae", picture_folders, tmp_path).rows.reader.table
    file = table.path(0)
    content = bytearray(file.read_bytes())
    half = len(content) // 2
    file.write_bytes(bytes(content[half:] + content[:half]))
    with pytest.raises(UserError, match=r"are not the teacher's: teacher.output has a cosine of"):
        make("mrmae", picture_folders, tmp_path)


def test_no_room_is_told_before_it_starts(picture_folders, tmp_path, monkeypatch, counted) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10, 9, 1000))
    with pytest.raises(UserError, match=r"needs .* KiB more in .*, 1000 bytes are free; set teacher_cache"):
        make("mrmae", picture_folders, tmp_path)
    assert sum(counted) == 8


REFUSED = {
    "new crops": (["experiment=mrmae", "data.crops_per_sample=null"], r"crops that are new in every epoch"),
    "a teacher that learns": (
        ["experiment=hpm"],
        r"no frozen teacher, .*: ema \(ema\)",
    ),
    "no teacher": (["experiment=mae"], r"there is no frozen teacher"),
    "a masked teacher": (
        ["experiment=mrmae", "passes.teacher.masking=main"],
        r"pass 'teacher' shows its teacher what a mask leaves",
    ),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_can_not_be_kept_is_refused(why) -> None:
    chosen, message = REFUSED[why]
    teacher = ["teacher=timm", "teacher.embed_dim=128", "teacher.num_heads=4"] if "mrmae" in chosen[0] else []
    first = ["data.crops_per_sample=2", "teacher_cache=disk"]
    with pytest.raises(ConfigError, match=message):
        compose([chosen[0], *teacher, *first, *chosen[1:]])


def test_an_interrupted_run_goes_on_bit_for_bit(picture_folders, tmp_path) -> None:
    """Over the border between two epochs."""

    def run(folder, steps=14):
        more = [f"run_dir={folder}", "max_steps=14", "callbacks.probe=null", "callbacks.best=null"]
        more += ["optim.schedule.warmup_epochs=0", "callbacks.save.every_steps=1"]
        more += ["trainer.log_every_n_steps=1"]
        cfg = compose(overrides_of("maskalign", picture_folders, tmp_path / "cache", *more))
        opened = open_run_folder(cfg)
        training = build_training(cfg, opened)
        training.trainer.fit_loop.epoch_loop.max_steps = steps
        checkpoint = opened.resume_from(cfg.resume)
        training.trainer.fit(training.module, datamodule=training.data, ckpt_path=checkpoint)
        return training.module.model.state_dict()

    whole = run(tmp_path / "whole")
    run(tmp_path / "parts", steps=8)
    parts = run(tmp_path / "parts")
    assert all(torch.equal(parts[name], whole[name]) for name in whole)
