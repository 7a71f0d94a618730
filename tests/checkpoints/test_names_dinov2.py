"""DINOv2's names, held against timm's own conversion of its files."""

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import checkpoint_filter_fn

from maskpre.checkpoints.sources import open_source
from maskpre.teachers.frozen import FrozenTeacher

NAME = "vit_small_patch14_reg4_dinov2"
SIZES = {"patch_size": 4, "embed_dim": 192, "depth": 1, "num_heads": 3}


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """A file as the authors make them: 4 x 4 patches, a position for the class token, a mask token."""
    torch.manual_seed(0)
    net = timm.create_model(NAME, img_size=16, num_classes=0, **SIZES)
    state = {name: torch.randn_like(value) for name, value in net.state_dict().items()}
    state["register_tokens"] = state.pop("reg_token")
    state["pos_embed"] = torch.randn(1, 17, 192)
    state["mask_token"] = torch.randn(1, 192)
    path = tmp_path_factory.mktemp("dinov2") / "dinov2_vits14_reg4_pretrain.pth"
    torch.save(state, path)
    return path, net, state


def test_names_are_timms(official) -> None:
    path, net, state = official
    opened = open_source(str(path))
    ours, theirs = opened.encoder(), checkpoint_filter_fn(dict(state), net)
    assert ours.keys() == theirs.keys() == net.state_dict().keys()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    built = opened.architecture().build(num_classes=0)
    built.load_state_dict(ours)
    net.load_state_dict(theirs)
    picture = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(
            built.eval().forward_features(picture), net.eval().forward_features(picture)
        )


def test_a_teacher_of_another_size_resizes_positions_as_timm_does(official) -> None:
    path, _, state = official
    statistics = {"view_mean": [0.5] * 3, "view_std": [0.2] * 3}
    teacher = FrozenTeacher(name=NAME, weights=str(path), view_size=8, **statistics, **SIZES)
    expected = resample_abs_pos_embed(state["pos_embed"][:, 1:], [2, 2], num_prefix_tokens=0)
    torch.testing.assert_close(teacher.network.pos_embed, expected)
    assert teacher.spec.num_prefix_tokens == 5
