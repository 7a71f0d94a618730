import pytest
import torch

from maskpre.data.multi_scale import MultiScaleCrop
from maskpre.data.randomness import Draws
from maskpre.errors import UserError


def test_sizes_are_the_shares_of_the_short_side_at_most_one_step_apart():
    sizes = MultiScaleCrop(size=224).sizes(256, 340)
    assert sizes == [
        (256, 256),
        (256, 224),
        (224, 256),
        (224, 224),
        (224, 192),
        (192, 224),
        (192, 192),
        (192, 168),
        (168, 192),
        (168, 168),
    ]


def test_sizes_near_the_wanted_one_become_it():
    crop = MultiScaleCrop(size=224, scales=(1, 0.88), max_distort=0)
    assert crop.sizes(256, 256) == [(256, 256), (224, 224)]
    assert crop.sizes(252, 300) == [(252, 252), (221, 221)]
    assert crop.sizes(222, 300)[0] == (222, 222)
    assert crop.sizes(1, 300) == [(1, 1), (1, 1)]


def test_places_are_the_thirteen_fixed_ones():
    crop = MultiScaleCrop(size=60, scales=(0.6,))
    boxes = {crop.box(100, 200, Draws(0, 0, index)) for index in range(400)}
    assert {(box.height, box.width) for box in boxes} == {(60, 60)}
    quarters = {(box.left / 35, box.top / 10) for box in boxes}
    corners = {(0, 0), (4, 0), (0, 4), (4, 4), (2, 2), (0, 2), (4, 2), (2, 4), (2, 0)}
    assert quarters == corners | {(1, 1), (3, 1), (1, 3), (3, 3)}


def test_all_frames_get_the_same_crop_and_flip():
    frame = torch.randint(0, 256, (3, 40, 50), generator=torch.Generator().manual_seed(0)).byte()
    clip = frame.repeat(5, 1, 1, 1)
    crop = MultiScaleCrop(size=24, flip=0.5)
    seen = set()
    for index in range(8):
        result = crop(clip, Draws(0, 0, index))
        assert result.shape == (5, 3, 24, 24)
        assert all(torch.equal(result[0], other) for other in result)
        assert torch.equal(result[0], crop(frame, Draws(0, 0, index)))
        seen.add(result.numpy().tobytes())
    assert len(seen) > 5


def test_flips_mirror():
    clip = torch.arange(2 * 3 * 8 * 8).view(2, 3, 8, 8).byte()
    plain, mirrored = (
        MultiScaleCrop(size=8, scales=(1,), flip=flip)(clip, Draws(0, 0, 0)) for flip in (0.0, 1.0)
    )
    assert torch.equal(plain, clip)
    assert torch.equal(mirrored, clip.flip(-1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scales": (1, 1.5)}, r"scales must be shares in \(0, 1\], got \[1, 1.5\]"),
        ({"scales": ()}, r"scales must be shares in \(0, 1\], got \[\]"),
        ({"max_distort": -1}, "max_distort must be at least 0, got -1"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        MultiScaleCrop(size=8, **settings)
