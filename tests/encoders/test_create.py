import pytest
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer

from maskpre.encoders.create import check_heads, create_timm

SIZES = {"depth": 1, "embed_dim": 8, "num_heads": 2, "patch_size": 4}


def test_options_that_are_none_stay_the_named_models():
    options = {**SIZES, "embed_dim": None, "num_heads": None}
    net = create_timm("vit_tiny_patch16_224", VisionTransformer, img_size=8, in_chans=1, options=options)
    assert (net.embed_dim, len(net.blocks), net.num_classes) == (192, 1, 0)
    assert net.patch_embed.grid_size == (2, 2)
    assert net.patch_embed.proj.in_channels == 1


def test_a_model_of_another_class_is_refused():
    with pytest.raises(ValueError, match="'beit_base_patch16_224' is a Beit, not a VisionTransformer"):
        create_timm("beit_base_patch16_224", VisionTransformer, img_size=8, in_chans=3, options=SIZES)


def test_options_the_model_does_not_know_are_named():
    message = "timm can't build 'swin_tiny_patch4_window7_224' as a SwinTransformer with img_size 8 .*'depth'"
    with pytest.raises(ValueError, match=message):
        create_timm("swin_tiny_patch4_window7_224", SwinTransformer, img_size=8, in_chans=3, options=SIZES)


def test_the_nearest_names_of_the_family_are_offered():
    with pytest.raises(
        ValueError, match="has no model 'vit_tiny_patch61_224'; the nearest names: vit_tiny_pat"
    ):
        create_timm("vit_tiny_patch61_224", VisionTransformer, img_size=8, in_chans=3, options=SIZES)


def test_heads_share_the_width():
    check_heads(4, 64)
    with pytest.raises(ValueError, match=r"num_heads \(5\) must divide embed_dim \(64\)"):
        check_heads(5, 64)
