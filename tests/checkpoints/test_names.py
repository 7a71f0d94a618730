"""The key maps of MAE and mmpretrain against real name lists of the golden cases."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from maskpre.checkpoints import names_mae, names_mmpretrain

GOLDEN = Path(__file__).parents[1] / "golden"


def test_mae_names_there_and_back() -> None:
    official = load_file(GOLDEN / "mae/pretrain_pixels/weights.safetensors")
    back = names_mae.official_keys(names_mae.pretraining_keys(official))
    assert back.keys() == official.keys()
    assert all(torch.equal(back[name], value) for name, value in official.items())


def test_mae_decoder_positions_lose_the_class_row() -> None:
    table = torch.randn(1, 5, 4)
    table[:, 0] = 0
    ours = names_mae.pretraining_keys({"decoder_pos_embed": table})
    assert torch.equal(ours["predictors.main.pos_embed"], table[:, 1:])
    table[:, 0] = 1
    with pytest.raises(ValueError, match="gives the class token a position"):
        names_mae.pretraining_keys({"decoder_pos_embed": table})


@pytest.mark.parametrize(
    "name", ["encoder.mask_token", "predictors.other.pred.weight", "teachers.t.norm.bias"]
)
def test_names_mae_never_had(name: str) -> None:
    with pytest.raises(ValueError, match="has no name in MAE's official checkpoints"):
        names_mae.NAMES.official_name(name)


def test_encoder_keys_leave_the_decoder_out() -> None:
    state = load_file(GOLDEN / "mae/pretrain_pixels/weights.safetensors")
    kept = names_mae.encoder_keys(state)
    assert state.keys() - kept.keys() == {n for n in state if n.startswith(("decoder_", "mask_token"))}


def test_mmpretrain_names_are_maes() -> None:
    state = load_file(GOLDEN / "colormae/model_green/weights.safetensors")
    ours = names_mmpretrain.pretraining_keys(state)
    assert len(ours) == len(state)
    assert torch.equal(
        ours["encoder.blocks.1.mlp.fc2.weight"], state["backbone.layers.1.ffn.layers.1.weight"]
    )
    assert torch.equal(ours["predictors.main.norm.bias"], state["neck.ln1.bias"])
    assert "encoder.norm.weight" in ours
    assert "predictors.main.blocks.0.norm2.weight" in ours


def test_mmpretrain_fine_tuned_names() -> None:
    one = torch.ones(1)
    state = {"backbone.ln2.weight": one, "head.fc.bias": one, "data_preprocessor.mean": one}
    assert names_mmpretrain.encoder_keys(state).keys() == {"fc_norm.weight", "head.bias"}
    with pytest.raises(ValueError, match=r"'backbone\.stem' is no name of an mmpretrain MAE checkpoint"):
        names_mmpretrain.encoder_keys({"backbone.stem": one})
