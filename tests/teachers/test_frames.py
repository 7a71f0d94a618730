import pytest
import torch
from torch.nn.functional import interpolate

from maskpre.teachers.frames import FrameTeacher
from maskpre.teachers.frozen import FrozenTeacher
from maskpre.types import Grid, MaskPlan, Taps

STATISTICS = {"view_mean": [0.5] * 3, "view_std": [0.2] * 3}


def pictures(name="vit_tiny_patch16_224", **options):
    sizes = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, **options}
    return FrozenTeacher(name=name, weights=None, view_size=32, **STATISTICS, **sizes)


@pytest.fixture(scope="module")
def teacher():
    return pictures()


def clip(frames=6):
    return torch.randn(2, 3, frames, 32, 32)


def test_every_second_frame_is_a_picture(teacher):
    made, video = FrameTeacher(teacher=teacher, num_frames=6), clip()
    found = made(video)
    assert made.spec.out_grid == found.grid == Grid((3, 4, 4), (2, 8, 8))
    assert (made.spec.num_prefix_tokens, found.prefix, found.ids) == (0, None, None)
    for sample in range(2):
        for row, frame in enumerate((0, 2, 4)):
            alone = teacher(video[sample : sample + 1, :, frame]).tokens[0]
            torch.testing.assert_close(found.tokens[sample].unflatten(0, (3, 16))[row], alone)


def test_hidden_layers(teacher):
    made, video = FrameTeacher(teacher=teacher, num_frames=6, every=3), clip()
    found = made(video, taps=Taps(hidden=frozenset({1})))
    expected = teacher(video[:, :, 3], taps=Taps(hidden=frozenset({1}))).hidden[1][:, 1:]
    torch.testing.assert_close(found.hidden[1][:, 16:], expected)


def test_registers_are_left_out_and_maps_resized():
    teacher = pictures("vit_small_patch14_reg4_dinov2", patch_size=4)
    made, video = FrameTeacher(teacher=teacher, num_frames=2, map_size=4), clip(2)
    assert teacher.spec.num_prefix_tokens == 5
    assert made.spec.out_grid == Grid((1, 4, 4), (2, 8, 8))
    tokens = teacher(video[:, :, 0]).tokens
    maps = tokens.transpose(1, 2).unflatten(2, (8, 8))
    expected = interpolate(maps, size=(4, 4), mode="bilinear").flatten(2).transpose(1, 2)
    torch.testing.assert_close(made(video).tokens, expected)


def test_a_map_of_the_same_size_stays(teacher):
    assert FrameTeacher(teacher=teacher, num_frames=2, map_size=4).resized is None


def test_nothing_of_it_is_trained_or_stored(teacher):
    made = FrameTeacher(teacher=teacher, num_frames=6)
    assert not list(made.parameters())
    assert not made.state_dict()
    assert not made(clip().requires_grad_()).tokens.requires_grad


def test_what_does_not_fit_is_refused(teacher):
    with pytest.raises(ValueError, match=r"every \(4\) must divide num_frames \(6\)"):
        FrameTeacher(teacher=teacher, num_frames=6, every=4)
    with pytest.raises(ValueError, match=r"map_size \(5\) must divide the teacher's picture of \(32, 32\)"):
        FrameTeacher(teacher=teacher, num_frames=6, map_size=5)
    with pytest.raises(ValueError, match=r"must read pictures, but has a grid of \(3, 4, 4\)"):
        FrameTeacher(teacher=FrameTeacher(teacher=teacher, num_frames=6), num_frames=6)
    grid = Grid((3, 4, 4), (2, 8, 8))
    plan = MaskPlan.from_order(torch.arange(48)[None], num_visible=4, grid=grid)
    with pytest.raises(ValueError, match="reads whole clips only"):
        FrameTeacher(teacher=teacher, num_frames=6)(clip(), plan)
