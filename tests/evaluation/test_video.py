"""Judging encoders of clips, and encoders of pictures on clips."""

import pytest
import torch
from torch import nn

from maskpre.data.randomness import Draws
from maskpre.data.transforms import CentreCrop
from maskpre.encoders.video_vit import VideoViT
from maskpre.encoders.video_vit_classifier import VideoViTClassifier
from maskpre.encoders.vit import ViT
from maskpre.evaluation.augment import BatchAugment, RandAugmented
from maskpre.evaluation.features import encode, extract, pixels_of, pooled

SMALL = {"img_size": 16, "num_frames": 4, "patch_size": 8, "embed_dim": 12, "depth": 1, "num_heads": 2}


def clips(num=2):
    return torch.randn(num, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))


def classifier(**options):
    torch.manual_seed(0)
    given = {"num_classes": 3, "global_pool": "avg", "drop_path_rate": 0.0, "options": SMALL, **options}
    return VideoViTClassifier(**given).eval()


def test_a_classifier_scores_the_mean_token_behind_a_norm_of_its_own():
    net = classifier()
    tokens = net.forward_features(clips())
    assert tokens.shape == (2, 8, 12)
    assert isinstance(net.norm, nn.Identity)
    torch.testing.assert_close(net(clips()), net.head(net.fc_norm(tokens.mean(dim=1))))


def test_without_pooling_it_is_the_encoder():
    encoder, net = VideoViT(**SMALL).eval(), classifier(global_pool="", num_classes=0)
    net.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(net(clips()), encoder(clips()).tokens)
    torch.testing.assert_close(encode(net, clips()).tokens, encode(encoder, clips()).tokens)


def test_tables_follow_the_classifier_and_stay_out_of_its_state():
    net = classifier().double()
    assert net.pos_embed.dtype is torch.float64
    assert "pos_embed" not in net.state_dict()
    learned = classifier(options={**SMALL, "position": "learned"})
    assert learned.state_dict()["pos_embed"].shape == (1, 8, 12)


def test_stochastic_depth_acts_in_training_alone():
    net = classifier(drop_path_rate=0.9, options={**SMALL, "depth": 3})
    whole = net(clips())
    assert torch.equal(net(clips()), whole)
    assert not torch.equal(net.train()(clips()), whole)


def test_class_tokens_are_refused():
    with pytest.raises(ValueError, match="global_pool must be 'avg' or '', got 'token'"):
        classifier(global_pool="token")


def test_an_encoder_of_pictures_sees_frames_one_by_one():
    torch.manual_seed(0)
    encoder = ViT(name="vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=12, depth=1, num_heads=2)
    encoded = encode(encoder.eval(), clips())
    frames = [encoder(clips()[:, :, t]) for t in range(4)]
    torch.testing.assert_close(encoded.tokens, torch.cat([frame.tokens for frame in frames], dim=1))
    torch.testing.assert_close(encoded.prefix, torch.stack([frame.prefix for frame in frames]).mean(dim=0))
    assert encoded.grid.shape == (4, 2, 2)
    # Played backwards, it sees the same.
    backwards = pooled(encode(encoder, clips().flip(2)), "avg")
    torch.testing.assert_close(backwards, pooled(encoded, "avg"))


def test_features_of_clips():
    batch = {"video": (clips() * 40 + 128).clamp(0, 255).byte(), "label": torch.tensor([0, 1])}
    net = classifier(global_pool="", num_classes=0)
    features = extract(net, [batch], pool="tokens", device=torch.device("cpu"), normalize=lambda x: x / 255)
    assert features.values.shape == (2, 8, 12)
    assert pixels_of({"image": batch["label"]}) is batch["label"]


def test_frames_are_erased_and_mixed_in_the_same_places():
    ones = torch.ones(4, 3, 4, 16, 16)
    erase = BatchAugment(mixup_alpha=0.0, cutmix_alpha=0.0, erase_prob=1.0)
    erased, _ = erase(ones.clone(), torch.arange(4), num_classes=4, seed=0)
    places = erased != 1
    assert places.any()
    assert torch.equal(places.any(dim=1).any(dim=1), places[:, 0, 0])
    cut = BatchAugment(mixup_alpha=0.0, erase_prob=0.0)
    numbered = torch.arange(4.0).view(4, 1, 1, 1, 1).expand(4, 3, 4, 16, 16).clone()
    mixed, targets = cut(numbered, torch.arange(4), num_classes=4, seed=1)
    assert mixed.shape == numbered.shape
    assert torch.equal(mixed, mixed[:, :1, :1].expand_as(mixed))
    assert targets.shape == (4, 4)


def test_rand_augment_treats_frames_alike():
    transform = RandAugmented(
        crop=CentreCrop(size=16, crop_ratio=1.0), policy="rand-m9-inc1", size=16, mean=[0.5] * 3
    )
    picture = torch.randint(256, (3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for index in range(5):
        clip = transform(picture.expand(3, -1, -1, -1), Draws(0, 0, index))
        assert torch.equal(clip[0], transform(picture, Draws(0, 0, index)))
        assert torch.equal(clip, clip[:1].expand_as(clip))
