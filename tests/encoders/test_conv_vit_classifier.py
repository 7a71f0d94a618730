import pytest
import torch
from torch import nn

from maskpre.encoders.conv_vit import ConvViT
from maskpre.encoders.conv_vit_classifier import ConvViTClassifier

SIZES = {
    "img_size": 32,
    "in_chans": 3,
    "patch_sizes": (2, 2, 2),
    "embed_dims": (8, 12, 16),
    "depths": (1, 1, 2),
    "num_heads": 4,
    "mlp_ratios": (2.0, 3.0, 4.0),
}


def classifier(num_classes: int = 5, pool: str | None = "avg", rate: float = 0.0) -> ConvViTClassifier:
    return ConvViTClassifier(
        num_classes=num_classes, global_pool=pool, drop_path_rate=rate, multi_scale=True, **SIZES
    )


def encoder_of(net: ConvViTClassifier, *, multi_scale: bool) -> ConvViT:
    """The pretraining encoder with the classifier's weights."""
    encoder = ConvViT(**SIZES, multi_scale=multi_scale).eval()
    encoder.load_state_dict({**encoder.state_dict(), **net.state_dict()}, strict=False)
    return encoder


def test_unpooled_it_is_the_encoder_with_its_skips() -> None:
    net = classifier(0, "").eval()
    x = torch.randn(2, 3, 32, 32)
    features = net(x)
    assert features.shape == (2, 16, 4, 4)
    expected = encoder_of(net, multi_scale=True)(x).tokens
    torch.testing.assert_close(features.flatten(2).transpose(1, 2), expected)


def test_fine_tuning_leaves_the_skips_out_and_norms_the_mean() -> None:
    net = classifier().eval()
    nn.init.normal_(net.fc_norm.bias)
    assert not any(name.startswith(("stage", "norm.")) for name in net.state_dict())
    encoder = encoder_of(net, multi_scale=False)
    encoder.norm = nn.Identity()
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(net(x), net.head(net.fc_norm(encoder(x).tokens.mean(dim=1))))


def test_it_is_like_timms_models() -> None:
    net = classifier(7, None)
    assert net.get_classifier() is net.head
    assert (net.num_features, net.head.out_features, net.global_pool) == (16, 7, "avg")
    assert net.pos_embed.requires_grad
    assert net.no_weight_decay() == {"pos_embed"}
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(net.forward_head(net.forward_features(x)), net(x))


def test_stochastic_depth_acts_in_training_only() -> None:
    net = classifier(rate=0.9)
    x = torch.randn(2, 3, 32, 32)
    assert not torch.allclose(net(x), net(x))
    assert torch.equal(net.eval()(x), net(x))


def test_there_is_no_class_token_to_read() -> None:
    with pytest.raises(ValueError, match="ConvViT has no class token: global_pool must be 'avg' or ''"):
        classifier(pool="token")
