import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from maskpre.data.randomness import Draws
from maskpre.data.transforms import CentreCrop, RandomPadCrop, RandomResizedCrop, SideCrop, resize
from maskpre.errors import UserError

PICTURE = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 75, 100), dtype=np.uint8))
PILLOW = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def draws(index: int) -> Draws:
    return Draws(seed=1, epoch=0, index=index)


def test_the_same_sample_gets_the_same_crop_in_the_same_epoch_only():
    crop = RandomResizedCrop(size=16)
    first = crop(PICTURE, Draws(1, 0, 5))
    assert torch.equal(first, crop(PICTURE, Draws(1, 0, 5)))
    for other in (Draws(2, 0, 5), Draws(1, 1, 5), Draws(1, 0, 6)):
        assert not torch.equal(first, crop(PICTURE, other))


@pytest.mark.parametrize("fit", ["retry", "clamp"])
def test_boxes_lie_inside_and_keep_to_area_and_ratio(fit):
    crop = RandomResizedCrop(size=16, scale=(0.2, 0.7), ratio=(0.5, 2.0), fit=fit)
    boxes = np.array([crop.box(75, 100, draws(index)) for index in range(2000)])
    top, left, height, width = boxes.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 75).all()
    assert (left + width <= 100).all()
    area, ratio = height * width / 7500, width / height
    inside = (height < 75) & (width < 100)
    assert area[inside].min() > 0.19
    assert area.max() < 0.71
    assert ratio[inside].min() > 0.49
    assert ratio[inside].max() < 2.05
    assert (top == 0).any()
    assert (top + height == 75).any()


def test_boxes_follow_the_distribution_of_torchvision():
    ours = RandomResizedCrop(size=16, scale=(0.2, 1.0))
    theirs = v2.RandomResizedCrop(16, scale=(0.2, 1.0))
    torch.manual_seed(0)
    expected = [theirs.make_params([PICTURE]) for _ in range(3000)]
    boxes = [ours.box(75, 100, draws(index)) for index in range(3000)]
    for name in ("top", "left", "height", "width"):
        mine = np.array([getattr(box, name) for box in boxes])
        other = np.array([params[name] for params in expected])
        assert mine.mean() == pytest.approx(other.mean(), rel=0.06)
        assert mine.std() == pytest.approx(other.std(), rel=0.06)


def test_one_draw_is_clamped_where_retries_would_go_on():
    extreme = {"size": 16, "scale": (1.0, 1.0), "ratio": (4.0, 4.0)}
    assert RandomResizedCrop(**extreme, fit="clamp").box(75, 100, draws(0))[2:] == (43, 100)
    assert RandomResizedCrop(**extreme, fit="retry").box(75, 100, draws(0)) == (25, 0, 25, 100)
    tall = {"size": 16, "scale": (1.0, 1.0), "ratio": (0.25, 0.25)}
    assert RandomResizedCrop(**tall, fit="retry").box(75, 100, draws(0)) == (0, 40, 75, 19)


def test_flips_happen_as_often_as_asked():
    never, always = (RandomResizedCrop(size=16, flip=share) for share in (0.0, 1.0))
    half = RandomResizedCrop(size=16)
    flipped = 0
    for index in range(300):
        straight = never(PICTURE, draws(index))
        assert torch.equal(always(PICTURE, draws(index)), straight.flip(-1))
        flipped += torch.equal(half(PICTURE, draws(index)), straight.flip(-1))
    assert 120 < flipped < 180


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("size", "levels"), [((25, 40), 2), ((75, 60), 2), ((150, 200), 2), ((13, 111), 4)])
def test_resizing_is_close_to_pillow(interpolation, size, levels):
    """Both antialias with the same kernel; torch's 8-bit arithmetic rounds the weights more coarsely."""
    ours = resize(PICTURE, size, interpolation).permute(1, 2, 0).numpy().astype(int)
    picture = Image.fromarray(PICTURE.permute(1, 2, 0).numpy())
    theirs = np.asarray(picture.resize(size[::-1], PILLOW[interpolation])).astype(int)
    assert np.abs(ours - theirs).max() <= levels
    assert np.abs(ours - theirs).mean() < 0.5


def test_a_crop_of_the_right_size_is_not_resampled():
    crop = RandomResizedCrop(size=75, scale=(0.75, 0.75), ratio=(1.0, 1.0), flip=0.0)
    box = crop.box(75, 100, draws(0))
    assert torch.equal(crop(PICTURE, draws(0)), PICTURE[:, :, box.left : box.left + 75])


def test_padding_reflects():
    picture = PICTURE[:, :64, :64]
    padded = np.pad(picture.numpy(), ((0, 0), (4, 4), (4, 4)), mode="reflect")
    crop = RandomPadCrop(size=64, flip=0.0)
    corners = set()
    for index in range(60):
        result = crop(picture, draws(index)).numpy()
        found = [
            (top, left)
            for top in range(9)
            for left in range(9)
            if np.array_equal(result, padded[:, top : top + 64, left : left + 64])
        ]
        assert len(found) == 1
        corners.update(found)
    assert len(corners) > 30


def test_without_padding_only_the_flip_is_left():
    picture = PICTURE[:, :64, :64]
    assert torch.equal(RandomPadCrop(size=64, padding=0, flip=0.0)(picture, draws(0)), picture)
    with pytest.raises(UserError, match=r"a side of 64 pixels with 2 of padding can't hold a crop of 80"):
        RandomPadCrop(size=80, padding=2)(picture, draws(0))


@pytest.mark.parametrize(("size", "ratio"), [(32, 0.875), (75, 1.0), (50, 0.9)])
def test_centre_crop_equals_torchvision(size, ratio):
    reference = v2.Compose(
        [
            v2.Resize(int(size / ratio), interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
            v2.CenterCrop(size),
        ]
    )
    assert torch.equal(CentreCrop(size=size, crop_ratio=ratio)(PICTURE, draws(0)), reference(PICTURE))


@pytest.mark.parametrize(
    "crop",
    [
        RandomResizedCrop(size=20),
        RandomPadCrop(size=60, padding=2),
        CentreCrop(size=20),
        SideCrop(size=20, place=0.0),
    ],
    ids=lambda crop: type(crop).__name__,
)
def test_all_frames_of_a_clip_get_what_a_picture_gets(crop):
    clip = torch.stack([PICTURE, PICTURE.flip(-2), 255 - PICTURE])
    for index in range(4):
        expected = torch.stack([crop(frame, draws(index)) for frame in clip])
        assert torch.equal(crop(clip, draws(index)), expected)


def test_side_crops_span_the_longer_side():
    for place, left in ((0.0, 0), (0.5, 12), (1.0, 25)):
        crop = SideCrop(size=75, place=place)(PICTURE, draws(0))
        assert torch.equal(crop, PICTURE[:, :, left : left + 75])
    tall = PICTURE.transpose(1, 2)
    assert torch.equal(SideCrop(size=75, place=1.0)(tall, draws(0)), tall[:, 25:])


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (
            RandomResizedCrop,
            {"scale": (0.5, 0.2)},
            r"crop scale must be two rising .* got \[0.5, 0.2\]",
        ),
        (RandomResizedCrop, {"scale": (0.2, 1.2)}, "crop scale must be"),
        (RandomResizedCrop, {"ratio": (0.0, 1.0)}, "crop ratio must be two rising positive numbers"),
        (SideCrop, {"place": -0.1}, r"place must be in \[0, 1\], got -0.1"),
        (CentreCrop, {"crop_ratio": 1.5}, r"crop_ratio must be in \(0, 1\], got 1.5"),
    ],
)
def test_impossible_settings_are_refused(kind, arguments, message):
    with pytest.raises(UserError, match=message):
        kind(size=16, **arguments)
