"""VideoMAE's network for classification, as a timm model would be."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from timm.layers.norm import LayerNorm
from torch import Tensor, nn

from maskpre.encoders.blocks import drop_path_rates, residual_scales, run_blocks
from maskpre.encoders.patches import embed_patches
from maskpre.encoders.video_vit import VideoViT
from maskpre.ops.noise import TorchNoise

STD = 0.02


class VideoViTClassifier(nn.Module):
    """Clips to class scores: a `VideoViT` of the arguments `options` under the names a timm model would have.

    `global_pool` "avg" is VideoMAE's fine-tuning: the mean token goes through a norm of its own, `fc_norm`.
    "" pools nothing and gives the pretrained encoder's tokens. Raises ValueError for another pooling.
    """

    def __init__(
        self, *, num_classes: int, global_pool: str | None, drop_path_rate: float, options: Mapping[str, Any]
    ) -> None:
        super().__init__()
        if global_pool not in (None, "avg", ""):
            raise ValueError(
                f"VideoViT has no class token: global_pool must be 'avg' or '', got {global_pool!r}"
            )
        net = VideoViT(**options)
        self.grid, width = net.spec.grid, net.spec.embed_dim
        self.patch_embed, self.blocks = net.patch_embed, net.blocks
        if isinstance(net.pos_embed, nn.Parameter):
            self.pos_embed: Tensor | None = net.pos_embed
        else:
            self.register_buffer("pos_embed", net.pos_embed, persistent=False)
        pooled = global_pool != ""
        self.global_pool = "avg" if pooled else ""
        self.num_classes, self.num_features, self.num_prefix_tokens = num_classes, width, 0
        self.norm: nn.Module = nn.Identity() if pooled else net.norm
        self.fc_norm = LayerNorm(width) if pooled else nn.Identity()
        self.head = nn.Linear(width, num_classes) if num_classes else nn.Identity()
        if isinstance(self.head, nn.Linear):
            nn.init.trunc_normal_(self.head.weight, std=STD)
            nn.init.zeros_(self.head.bias)
        self._drop_path = drop_path_rates(drop_path_rate, len(self.blocks))
        self._recompute = False

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute block activations in the backward pass."""
        self._recompute = enable

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.head

    def no_weight_decay(self) -> set[str]:
        """Names of what is not decayed though it has more than one dimension."""
        return {"pos_embed"}

    def forward_features(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b n d"]:
        """Tokens of all tubelets in raster order."""
        tokens = embed_patches(self.patch_embed, x, self.grid, None)
        tokens = tokens if self.pos_embed is None else tokens + self.pos_embed
        scales = residual_scales(TorchNoise(len(x), x.device), self._drop_path, training=self.training)
        return self.norm(run_blocks(self.blocks, tokens, scales, recompute=self._recompute))

    def forward_head(self, x: Float[Tensor, "b n d"], pre_logits: bool = False) -> Tensor:
        """Scores of the mean token, or what goes into the last layer; the tokens if nothing is pooled."""
        pooled = self.fc_norm(x.mean(dim=1)) if self.global_pool == "avg" else x
        return pooled if pre_logits else self.head(pooled)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Tensor:
        """Class scores."""
        return self.forward_head(self.forward_features(x))
