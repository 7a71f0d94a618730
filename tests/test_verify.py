import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from maskpre import verify

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(file.parent for file in GOLDEN.rglob("case.json"))


def _copy(case: str, to: Path) -> Path:
    folder = to / Path(case).name
    shutil.copytree(GOLDEN / case, folder)
    return folder


def _edit(folder: Path, **hyperparameters: object) -> None:
    record = json.loads((folder / "case.json").read_text())
    record["hyperparameters"] |= hyperparameters
    (folder / "case.json").write_text(json.dumps(record))


def _perturb(file: Path, name: str, by: float) -> None:
    tensors = load_file(file)
    tensors[name].view(-1)[0] += by
    save_file(tensors, file)


@pytest.mark.parametrize("folder", CASES, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_shipped_cases_are_reproduced(folder: Path) -> None:
    verdict = verify.verify(folder)
    assert verdict.ok, verdict.wrong
    assert verdict.tensor.what
    assert verdict.tensor.error < 1e-6
    assert verdict.gradient.error < 1e-6


@pytest.mark.parametrize("execution", ["mask", "[tiles,mask,tiles,mask,tiles]"])
@pytest.mark.parametrize("case", ["resnet_bottleneck_train", "convnext_train"])
def test_spark_is_reproduced_by_every_execution(case: str, execution: str) -> None:
    verdict = verify.verify(GOLDEN / "spark" / case, [f"encoder.execution={execution}"])
    assert verdict.ok, verdict.wrong
    assert verdict.loss.error < 1e-6
    assert verdict.tensor.error < 1e-6
    assert verdict.gradient.error < 1e-6


def test_an_override_that_fits_no_experiment_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(GOLDEN / "spark/convnext_train"), "--override", "encoder.execution=dense"]) == 2
    assert "encoder.execution: expected one of tiles, mask or a list of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("case", "file", "name", "by", "told"),
    [
        ("mae/pretrain_pixels", "weights", "blocks.1.mlp.fc1.weight", 1.0, "loss is off by"),
        ("mae/pretrain_pixels", "outputs", "mask", 1.0, "mask is off by"),
        ("mae/pretrain_normpix", "outputs", "grad/mask_token", 0.01, "predictors.main.mask_token is off by"),
        ("mae/finetune_gap", "weights", "fc_norm.weight", 0.01, "logits is off by"),
        ("mae/linprobe_cls", "outputs", "running_var_after", 0.01, "running_var_after is off by"),
        ("mae/lars_step", "weights", "head.1.weight", 0.01, "step0/head.1.weight is off by"),
        ("colormae/mask_bank", "inputs", "flips", -1, "ids_keep is off by"),
        ("simmim/mask_generator", "outputs", "mask1", 1, "mask1 is off by inf"),
        (
            "simmim/finetune_swin_win6_to_7",
            "weights",
            "encoder.layers.0.blocks.0.attn.relative_position_bias_table",
            0.01,
            "loaded/layers.0.blocks.0.attn.relative_position_bias_table is off by",
        ),
        ("simmim/vit_shared_rpb", "weights", "encoder.blocks.0.gamma_1", 0.01, "loss is off by"),
    ],
)
def test_a_deviation_fails(
    case: str, file: str, name: str, by: float, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _copy(case, tmp_path)
    _perturb(folder / f"{file}.safetensors", name, by)
    assert verify.main([str(folder)]) == 1
    assert f"{case.split('/')[0]}/{folder.name}: {told}" in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize(
    ("case", "path", "value"),
    [
        ("mae/pretrain_pixels", ["no_weight_decay", 0], "cls_token"),
        ("mae/pretrain_pixels", ["group_weight_decay", 1], 0.1),
        ("mae/pretrain_pixels", ["lr_schedule", "points_epoch_lr", 3, 1], 0.00239995),
        ("mae/finetune_gap", ["layer_decay_groups_name_to_lrscale_wd", "pos_embed", 0], 0.5),
        ("mae/finetune_gap", ["missing_keys", 0], "norm.bias"),
        ("colormae/mask_windows", ["len_keep"], 48),
        ("simmim/swin", ["weight_decay", 0], "decoder.0.bias"),
        ("simmim/mask_generator", ["rand_size_scale_maskcount", 0, 2], 21),
    ],
)
def test_a_wrong_extra_fails(
    case: str, path: list[str | int], value: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _copy(case, tmp_path)
    record = json.loads((folder / "case.json").read_text())
    inner = record["extras"]
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    (folder / "case.json").write_text(json.dumps(record))
    assert verify.main([str(folder)]) == 1
    assert f"extras.{path[0]}" in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize(
    ("case", "changes", "told"),
    [
        ("mae/pretrain_pixels", {"qk_norm": True}, "hyperparameters: 'qk_norm' is unknown"),
        ("mae/pretrain_pixels", {"decoder_depht": 1}, "is unknown; did you mean 'decoder_depth'?"),
        (
            "mae/pretrain_pixels",
            {"depth": "two"},
            "Value 'two' of type 'str' could not be converted to Integer",
        ),
        ("mae/pretrain_pixels", {"num_heads": 5}, "num_heads (5) must divide embed_dim (48)"),
        ("mae/pretrain_pixels", {"depth": 3}, "the weights don't fit the model"),
        ("mae/finetune_gap", {"head": "mlp"}, "head 'mlp' is unknown; known are finetune, linprobe"),
        ("colormae/model_green", {"color": "pink"}, "color 'pink' is unknown; known are"),
        ("simmim/swin", {"type": "resnet"}, "type 'resnet' is unknown; known are swin, vit"),
        ("simmim/swin", {"encoder_stride": 16}, "encoder_stride is 16, the encoder's cells are of 8 pixels"),
        ("simmim/vit_shared_rpb", {"encoder": {"swiglu": True}}, "encoder: 'swiglu' is unknown"),
    ],
)
def test_a_switch_that_cant_be_built_is_named(
    case: str, changes: dict[str, object], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _copy(case, tmp_path)
    _edit(folder, **changes)
    assert verify.main([str(folder)]) == 2
    assert told in capsys.readouterr().err


def test_unknown_systems_and_kinds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _copy("mae/lars_step", tmp_path)
    record = json.loads((folder / "case.json").read_text())
    (folder / "case.json").write_text(json.dumps({**record, "system": "dino"}))
    assert verify.main([str(folder)]) == 2
    assert (
        "system 'dino' is unknown; known are colormae, hpm, layer_masking, mae, maskalign"
        in capsys.readouterr().err
    )
    (folder / "case.json").write_text(json.dumps({**record, "hyperparameters": {"x": 1}}))
    assert verify.main([str(folder)]) == 2
    assert "no kind of mae case fits" in capsys.readouterr().err


def test_outputs_and_extras_nobody_knows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _copy("mae/lars_step", tmp_path)
    outputs = load_file(folder / "outputs.safetensors")
    save_file({**outputs, "entropy": torch.zeros(1)}, folder / "outputs.safetensors")
    assert verify.main([str(folder)]) == 2
    assert "output 'entropy' is unknown to this kind of case" in capsys.readouterr().err


def test_broken_and_missing_cases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(tmp_path)]) == 2
    assert "holds no golden case" in capsys.readouterr().err
    folder = _copy("mae/lars_step", tmp_path)
    (folder / "inputs.safetensors").unlink()
    assert verify.main([str(tmp_path)]) == 2
    assert "there is no file" in capsys.readouterr().err


def test_an_installed_package_has_no_cases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verify, "SHIPPED", tmp_path / "golden")
    assert verify.main([]) == 2
    assert "no cases are shipped with an installed package" in capsys.readouterr().err


def test_one_bad_case_does_not_hide_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _edit(_copy("mae/lars_step", tmp_path), dampening=0.1)
    _copy("colormae/mask_windows", tmp_path)
    assert verify.main([str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert "colormae/mask_windows" in printed.out
    assert "'dampening' is unknown" in printed.err
