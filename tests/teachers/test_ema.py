"""Averaged teachers in whole models and runs."""

import random
from pathlib import Path

import pytest
import torch
from lightning import Callback

from maskpre.build import build_model
from maskpre.checkpoints.load import load_into
from maskpre.checkpoints.read import read_torch
from maskpre.checkpoints.save import atomic_save
from maskpre.config import compose
from maskpre.errors import ConfigError
from maskpre.model import MaskedModel
from maskpre.ops.noise import KeyedNoise
from maskpre.run_folder import open_run_folder
from maskpre.teachers.ema import EmaTeacher
from maskpre.training import Training, build_training
from maskpre.types import Step

SIZES = ["data.image_size=32", "encoder.embed_dim=24", "encoder.depth=2", "encoder.num_heads=2"]
DECODER = ["predictor.embed_dim=16", "predictor.depth=1", "predictor.num_heads=2"]


def make(*more: str) -> MaskedModel:
    torch.manual_seed(0)
    return build_model(compose(["experiment=hpm", *SIZES, *DECODER, *more]))


def run(model: MaskedModel, progress: float = 0.9) -> Step:
    generator = torch.Generator().manual_seed(0)
    batch = {
        "image": torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=generator),
        "index": torch.tensor([3, 8]),
        "epoch": torch.tensor([0, 0]),
    }
    return model(batch, noise=KeyedNoise(0, batch["epoch"], batch["index"]), progress=progress)


def teacher_of(model: MaskedModel) -> EmaTeacher:
    return model.averages["ema"]


def test_no_gradient_reaches_it_and_it_is_not_optimised() -> None:
    model = make()
    run(model).total.backward()
    for name, parameter in model.named_parameters():
        averaged = name.startswith("averages.")
        assert (parameter.grad is None) == (averaged or not parameter.requires_grad), name
    assert any(name.startswith("averages.ema.predictors.losses.") for name, _ in model.named_parameters())


def test_it_starts_as_a_copy_and_always_evaluates() -> None:
    model = make("encoder.drop_path_rate=0.5").train()
    teacher = teacher_of(model)
    assert not any(part.training for part in teacher.modules())
    for name, value in teacher.encoder.state_dict().items():
        assert torch.equal(value, model.encoder.state_dict()[name])
        assert value.data_ptr() != model.encoder.state_dict()[name].data_ptr()
    first, second = (run(model).predictions["ema"]["losses"].tokens for _ in range(2))
    assert torch.equal(first, second)


def test_its_pass_runs_what_is_read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make()
    ran: list[str] = []
    for name, predictor in teacher_of(model).predictors.items():
        predictor.register_forward_hook(lambda *_, name=name: ran.append(name))
    step = run(model)
    assert ran == ["losses"]
    assert set(step.predictions["ema"]) == {"losses"}
    assert step.predictions["ema"]["losses"].tokens.shape == (2, 16, 1)
    assert not step.predictions["ema"]["losses"].tokens.requires_grad


def test_shared_inputs_are_prepared_once() -> None:
    model = make()
    prepared: list[str] = []
    for owner, network in (("student", model.student), ("ema", teacher_of(model).network)):
        embed = network.predictors["main"].embed
        embed.register_forward_hook(lambda *_, owner=owner: prepared.append(owner))
    run(model)
    assert prepared == ["ema", "student"]


def test_the_loss_predictor_reads_what_the_reconstructor_reads() -> None:
    model = make()
    own = {name.partition(".")[0] for name, _ in model.predictors["losses"].named_parameters()}
    assert own == {"blocks", "norm", "pred"}
    step = run(model)
    step.losses["losses"].backward()
    main = model.predictors["main"]
    assert main.embed.weight.grad.any()
    assert main.mask_token.grad.any()
    assert main.pred.weight.grad is None
    assert model.encoder.patch_embed.proj.weight.grad.any()


def test_a_chosen_set_is_averaged() -> None:
    encoder_only = make(
        "averages.jepa={_target_: maskpre.teachers.ema.EmaTeacher, _partial_: true, "
        "predictors: [], decay: {_target_: maskpre.teachers.decay.RampDecay}}"
    )
    names = {name for name in encoder_only.state_dict() if name.startswith("averages.jepa.")}
    assert names == {f"averages.jepa.encoder.{name}" for name in encoder_only.encoder.state_dict()}


def test_an_unknown_predictor_is_refused() -> None:
    extra = "averages.other={_target_: maskpre.teachers.ema.EmaTeacher, _partial_: true, predictors: [mian], "
    with pytest.raises(ConfigError, match=r"there is no predictor 'mian' to average, only .* did you mean"):
        make(extra + "decay: {_target_: maskpre.teachers.decay.RampDecay}}")


def test_starting_from_weights_restarts_the_average(tmp_path: Path) -> None:
    model, other = make(), make("seed=1")
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter)
    plain = {name: value for name, value in other.state_dict().items() if not name.startswith("averages.")}
    config = {"encoder": {"_target_": "maskpre.encoders.vit.ViT"}}
    atomic_save({"state_dict": plain, "config": config}, tmp_path / "other.ckpt")
    load_into(model, str(tmp_path / "other.ckpt"))
    for name, value in teacher_of(model).encoder.state_dict().items():
        assert torch.equal(value, other.encoder.state_dict()[name])


def training_of(overrides: list[str], folder: Path) -> Training:
    cfg = compose([*overrides, f"run_dir={folder}"])
    return build_training(cfg, open_run_folder(cfg))


@pytest.fixture(scope="module")
def tiny_hpm(tiny: list[str]) -> list[str]:
    return ["experiment=hpm", *tiny, *DECODER, "epochs=2", "max_steps=8", "masking.epochs=4"]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_it_moves_once_per_optimiser_step(tiny_hpm: list[str], tmp_path: Path, accumulate: int) -> None:
    more = [f"trainer.accumulate_grad_batches={accumulate}", "max_steps=5", "averages.ema.decay.start=0.9"]
    training = training_of([*tiny_hpm, *more], tmp_path)
    model = training.module.model
    weight, average = model.encoder.norm.bias, teacher_of(model).encoder.norm.bias
    expected, decay = average.detach().clone(), teacher_of(model).decay

    class Follow(Callback):
        def on_before_zero_grad(self, trainer, pl_module, optimizer) -> None:
            steps.append(trainer.global_step)

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
            if (batch_idx + 1) % accumulate == 0:
                share = decay((trainer.global_step - 1) / 5)
                expected.mul_(share).add_((1 - share) * weight.detach())

    steps: list[int] = []
    training.trainer.callbacks.append(Follow())
    training.trainer.fit(training.module, datamodule=training.data)
    torch.testing.assert_close(average.detach(), expected)
    assert weight.any()


def finish(overrides: list[str], folder: Path) -> dict[str, torch.Tensor]:
    training = training_of(overrides, folder)
    last = folder / "checkpoints/last.ckpt"
    training.trainer.fit(training.module, datamodule=training.data, ckpt_path=last if last.exists() else None)
    return read_torch(last)["state_dict"]


class Killed(Exception):
    pass


class Kill(Callback):
    def __init__(self, at: int) -> None:
        self.at = at

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if trainer.global_step == self.at:
            raise Killed


def test_weights_averages_and_masks_resume_bit_for_bit(tiny_hpm: list[str], tmp_path: Path) -> None:
    whole = finish(tiny_hpm, tmp_path / "whole")
    overrides = [*tiny_hpm, "callbacks.save.every_steps=1"]
    training = training_of(overrides, tmp_path / "parts")
    training.trainer.callbacks.append(Kill(at=random.randint(2, 6)))
    with pytest.raises(Killed):
        training.trainer.fit(training.module, datamodule=training.data)
    parts = finish(overrides, tmp_path / "parts")
    assert parts.keys() == whole.keys()
    assert any(name.startswith("averages.ema.") for name in whole)
    assert all(torch.equal(parts[name], whole[name]) for name in whole)
