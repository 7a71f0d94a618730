import pytest
import timm
import torch
from torch import nn

from maskpre.encoders.convnet import ConvNet
from maskpre.encoders.vit import ViT
from maskpre.errors import UserError
from maskpre.evaluation import extract
from maskpre.evaluation.features import encode, evaluating

CPU = torch.device("cpu")


def vit(**changes):
    return timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, **changes)


def batches(labels, size=32):
    generator = torch.Generator().manual_seed(0)
    for label in labels:
        image = torch.randint(256, (2, 3, size, size), dtype=torch.uint8, generator=generator)
        yield {"image": image, "label": torch.full((2,), label)}


def normalize(image):
    return image / 255


def test_timm_vit_tokens_without_prefix_and_class_token_apart():
    model = vit().eval()
    image = torch.randn(2, 3, 32, 32)
    encoded = encode(model, image)
    features = model.forward_features(image)
    assert encoded.grid.shape == (2, 2)
    assert encoded.grid.stride == (16, 16)
    torch.testing.assert_close(encoded.pooled("cls"), features[:, 0])
    torch.testing.assert_close(encoded.pooled("avg"), features[:, 1:].mean(1))


def test_maps_with_channels_last_and_first_become_tokens_in_raster_order():
    image = torch.randn(1, 3, 64, 64)
    swin = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=64, window_size=2, depths=(1, 1, 1, 1)
    ).eval()
    resnet = timm.create_model("resnet18").eval()
    assert torch.equal(encode(swin, image).tokens[:, 1], swin.forward_features(image)[:, 0, 1])
    assert torch.equal(encode(resnet, image).tokens[:, 1], resnet.forward_features(image)[:, :, 0, 1])
    assert encode(resnet, image).grid.stride == (32, 32)


def test_averages_of_all_maps_stand_behind_one_another():
    sizes = {"layers": [1, 1, 1, 1], "channels": [4, 5, 6, 7]}
    net = ConvNet(name="resnet18", img_size=64, options=sizes, num_maps=3).eval()
    found = extract(net, batches([0], size=64), pool="maps", device=CPU, normalize=normalize)
    maps = net(normalize(next(batches([0], size=64))["image"])).maps
    torch.testing.assert_close(
        found.values, torch.cat([one.mean(dim=(2, 3)) for one in maps], dim=1).detach()
    )
    assert found.values.shape == (2, 5 + 6 + 7)
    with pytest.raises(UserError, match="the network gives no feature maps; use 'avg'"):
        extract(vit(), batches([0]), pool="maps", device=CPU, normalize=normalize)


def test_a_maskpre_encoder_and_the_timm_model_of_its_weights_agree():
    ours = ViT(name="vit_tiny_patch16_224", img_size=32, depth=1)
    theirs = vit(num_classes=0)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    data = list(batches([0, 1]))
    for pool in ("cls", "avg", "tokens"):
        pair = [extract(model, data, pool=pool, device=CPU, normalize=normalize) for model in (ours, theirs)]
        torch.testing.assert_close(pair[0].values, pair[1].values)
        assert pair[0].labels.tolist() == [0, 0, 1, 1]


def test_extraction_evaluates_and_leaves_modes_and_gradients_alone():
    model = vit(drop_rate=0.9)
    model.train()
    model.norm.eval()
    data = list(batches([0]))
    first, second = (extract(model, data, pool="avg", device=CPU, normalize=normalize) for _ in range(2))
    assert torch.equal(first.values, second.values)
    assert not first.values.requires_grad
    assert model.training
    assert not model.norm.training


def test_modes_come_back_after_an_error():
    model = vit()
    with pytest.raises(RuntimeError), evaluating(model):
        raise RuntimeError
    assert model.training


def test_all_tokens_are_kept_in_half_precision():
    features = extract(vit(), batches([0]), pool="tokens", device=CPU, normalize=normalize)
    assert features.values.shape == (2, 5, 192)
    assert features.values.dtype == torch.float16


def test_what_cannot_be_evaluated_is_named():
    with pytest.raises(UserError, match="4 of 6 samples have no label"):
        extract(vit(), batches([-1, 0, -1]), pool="avg", device=CPU, normalize=normalize)
    with pytest.raises(UserError, match="no samples"):
        extract(vit(), [], pool="avg", device=CPU, normalize=normalize)
    with pytest.raises(UserError, match="Linear is neither a maskpre encoder nor a timm model"):
        encode(nn.Linear(2, 2), torch.zeros(1, 3, 8, 8))
