import pytest
import torch
from timm.loss.cross_entropy import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy

from maskpre.data.randomness import Draws
from maskpre.data.transforms import CentreCrop
from maskpre.errors import UserError
from maskpre.evaluation.augment import BatchAugment, RandAugmented, TrivialAugmented

POLICY = "rand-m9-mstd0.5-inc1"


def rand_augment(policy=POLICY, channels=3):
    return RandAugmented(
        crop=CentreCrop(size=24, crop_ratio=1.0), policy=policy, size=24, mean=[0.5] * channels
    )


@pytest.fixture
def picture():
    return torch.randint(256, (3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_rand_augment_depends_on_the_draws_alone(picture):
    transform = rand_augment()
    first = [transform(picture, Draws(0, 1, index)) for index in range(20)]
    torch.manual_seed(5)
    again = [rand_augment()(picture, Draws(0, 1, index)) for index in reversed(range(20))]
    assert all(torch.equal(a, b) for a, b in zip(first, reversed(again), strict=True))
    assert sum(not torch.equal(a, picture) for a in first) > 10
    assert all(a.shape == picture.shape and a.dtype == torch.uint8 for a in first)


def test_rand_augment_survives_full_magnitude_and_grey_pictures(picture):
    # At magnitude 10 posterising keeps no bit; 80 pictures meet every operation.
    for index in range(80):
        rand_augment("rand-m10-inc1")(picture, Draws(0, 0, index))
        assert rand_augment(channels=1)(picture[:1], Draws(0, 0, index)).shape == (1, 24, 24)


def test_rand_augment_refuses_what_it_cannot_do():
    with pytest.raises(UserError, match="pictures of 1 or 3 channels, not 4"):
        rand_augment(channels=4)
    with pytest.raises(UserError, match="'augmix' must describe a RandAugment"):
        rand_augment("augmix")


def test_trivial_augment_depends_on_the_draws_alone(picture):
    def augmented(index, channels=3):
        transform = TrivialAugmented(crop=CentreCrop(size=24, crop_ratio=1.0))
        return transform(picture[:channels], Draws(0, 1, index))

    first = [augmented(index) for index in range(40)]
    torch.manual_seed(5)
    assert all(torch.equal(one, augmented(index)) for index, one in enumerate(first))
    assert len({one.numpy().tobytes() for one in first}) > 20
    assert all(one.shape == picture.shape and one.dtype == torch.uint8 for one in first)
    assert augmented(3, channels=1).shape == (1, 24, 24)
    with pytest.raises(UserError, match=r"pictures of 1 or 3 channels, got \(2, 24, 24\)"):
        augmented(0, channels=2)


def batch(num=8):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(num, 3, 12, 12, generator=generator), torch.arange(num) % 5


def test_mixing_follows_the_seed_and_mixes_targets_like_pictures():
    images, labels = batch()
    augment = BatchAugment(cutmix_alpha=0.0, label_smoothing=0.0, erase_prob=0.0)
    mixed, targets = augment(images.clone(), labels, num_classes=5, seed=3)
    again, _ = augment(images.clone(), labels, num_classes=5, seed=3)
    other, _ = augment(images.clone(), labels, num_classes=5, seed=4)
    assert torch.equal(mixed, again)
    assert not torch.equal(mixed, other)
    share = targets[0, labels[0]].item()
    assert 0 < share < 1
    torch.testing.assert_close(mixed, share * images + (1 - share) * images.flip(0))
    one_hot = torch.eye(5)[labels]
    torch.testing.assert_close(targets, share * one_hot + (1 - share) * one_hot.flip(0))


def test_cutmix_weighs_targets_by_area():
    images, labels = torch.zeros(2, 1, 16, 16), torch.tensor([0, 1])
    images[1] = 1
    augment = BatchAugment(mixup_alpha=0.0, label_smoothing=0.0, erase_prob=0.0)
    for seed in range(5):
        mixed, targets = augment(images.clone(), labels, num_classes=2, seed=seed)
        assert mixed[0].mean().item() == pytest.approx(targets[0, 1].item(), abs=1e-6)


def test_without_mixing_the_loss_is_label_smoothing():
    images, labels = batch(7)
    augment = BatchAugment(mixup_alpha=0.0, cutmix_alpha=0.0, label_smoothing=0.1, erase_prob=0.0)
    same, targets = augment(images.clone(), labels, num_classes=5, seed=0)
    assert torch.equal(same, images)
    scores = torch.randn(7, 5, generator=torch.Generator().manual_seed(1))
    expected = LabelSmoothingCrossEntropy(0.1)(scores, labels)
    torch.testing.assert_close(SoftTargetCrossEntropy()(scores, targets), expected)


def test_erasing_fills_rectangles_of_some_pictures_with_noise():
    images = torch.full((400, 1, 16, 16), 9.0)
    augment = BatchAugment(mixup_alpha=0.0, cutmix_alpha=0.0, erase_prob=0.25)
    erased, _ = augment(images, torch.zeros(400, dtype=torch.int64), num_classes=2, seed=0)
    touched = [picture for picture in erased if (picture != 9).any()]
    assert 70 <= len(touched) <= 130
    rows, columns = (touched[0][0] != 9).nonzero(as_tuple=True)
    assert (touched[0][0] != 9).sum() == (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)


def test_an_odd_batch_cannot_be_mixed():
    with pytest.raises(UserError, match="mixup and cutmix need an even batch, got 3 pictures"):
        BatchAugment()(torch.zeros(3, 3, 8, 8), torch.zeros(3, dtype=torch.int64), num_classes=2, seed=0)
