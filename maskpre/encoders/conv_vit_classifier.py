"""ConvMAE's network for classification, as a timm model would be."""

from collections.abc import Sequence

from jaxtyping import Float
from timm.layers.norm import LayerNorm
from torch import Tensor, nn

from maskpre.encoders.conv_vit_trunk import ConvViTSizes, ConvViTTrunk
from maskpre.ops.noise import TorchNoise


class ConvViTClassifier(ConvViTTrunk):
    """Pictures to class scores (Gao et al. 2022, fine-tuning code).

    `global_pool` "avg" is ConvMAE's fine-tuning: the skips of the convolution stages are gone, and the mean
    token goes through a norm of its own, `fc_norm`. "" pools nothing and gives the pretrained encoder's
    tokens, with its skips if `multi_scale`. Positions are trained. Raises ValueError for another pooling.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        global_pool: str | None,
        drop_path_rate: float,
        img_size: int,
        in_chans: int,
        patch_sizes: Sequence[int],
        embed_dims: Sequence[int],
        depths: Sequence[int],
        num_heads: int,
        mlp_ratios: Sequence[float],
        multi_scale: bool,
    ) -> None:
        if global_pool not in (None, "avg", ""):
            raise ValueError(
                f"ConvViT has no class token: global_pool must be 'avg' or '', got {global_pool!r}"
            )
        pooled = global_pool != ""
        sizes = ConvViTSizes(
            img_size=img_size,
            in_chans=in_chans,
            patch_sizes=patch_sizes,
            embed_dims=embed_dims,
            depths=depths,
            num_heads=num_heads,
            mlp_ratios=mlp_ratios,
        )
        super().__init__(sizes=sizes, multi_scale=multi_scale and not pooled, drop_path_rate=drop_path_rate)
        self.global_pool = "avg" if pooled else ""
        self.num_classes, self.num_features = num_classes, embed_dims[-1]
        self.norm = nn.Identity() if pooled else self.norm
        self.fc_norm = LayerNorm(self.num_features) if pooled else nn.Identity()
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.head

    def no_weight_decay(self) -> set[str]:
        """Names of what is not decayed though it has more than one dimension."""
        return {"pos_embed"}

    def forward_features(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d gh gw"]:
        """A map of the cells."""
        tokens = self.norm(self.tokens(x, None, TorchNoise(len(x), x.device)))
        return tokens.transpose(1, 2).unflatten(2, self.sizes.grid(2).shape)

    def forward_head(self, x: Float[Tensor, "b d gh gw"]) -> Tensor:
        """Scores of the pooled map; the map itself if nothing is pooled."""
        return self.head(self.fc_norm(x.mean(dim=(2, 3)))) if self.global_pool == "avg" else x

    def forward(self, x: Float[Tensor, "b c h w"]) -> Tensor:
        """Class scores."""
        return self.forward_head(self.forward_features(x))
