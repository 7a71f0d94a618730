"""ConvMAE's hybrid encoder."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from maskpre.encoders.base import Encoder, EncoderSpec, Hidden
from maskpre.encoders.conv_vit_trunk import ConvViTSizes, ConvViTTrunk
from maskpre.types import Encoded, MaskPlan, Noise


class ConvViT(ConvViTTrunk, Encoder):
    """Two stages of masked 5 x 5 convolutions, then transformer blocks (ConvMAE, Gao et al. 2022).

    Plans live on the last stage's cells, `patch_sizes` multiplied: finer stages show and hide whole cells.
    Only visible cells are computed, in all stages; hidden ones are zeros to the convolutions.
    `multi_scale` adds the first stages' outputs, brought to cells, to the transformer's (section 3.3). There
    is no class token; positions are MAE's fixed table. `drop_path_rate` is the last block's, rising linearly
    over all stages.

    Raises ValueError if the sizes don't go together, or if `hidden` is "replace".
    """

    def __init__(
        self,
        *,
        img_size: int,
        in_chans: int = 3,
        patch_sizes: Sequence[int] = (4, 2, 2),
        embed_dims: Sequence[int] = (256, 384, 768),
        depths: Sequence[int] = (2, 2, 11),
        num_heads: int = 12,
        mlp_ratios: Sequence[float] = (4.0, 4.0, 4.0),
        multi_scale: bool = True,
        drop_path_rate: float = 0.0,
        hidden: Hidden = "drop",
    ) -> None:
        if hidden != "drop":
            raise ValueError(f"masked convolutions leave cells out: hidden must be 'drop', got {hidden!r}")
        sizes = ConvViTSizes(
            img_size=img_size,
            in_chans=in_chans,
            patch_sizes=patch_sizes,
            embed_dims=embed_dims,
            depths=depths,
            num_heads=num_heads,
            mlp_ratios=mlp_ratios,
        )
        super().__init__(sizes=sizes, multi_scale=multi_scale, drop_path_rate=drop_path_rate)
        self.pos_embed.requires_grad_(False)
        self.spec = EncoderSpec(
            embed_dim=embed_dims[-1],
            grid=sizes.grid(2),
            out_grid=sizes.grid(2),
            num_prefix_tokens=0,
            in_chans=in_chans,
            hidden=hidden,
        )

    def forward(
        self, x: Float[Tensor, "b c h w"], plan: MaskPlan | None = None, noise: Noise | None = None
    ) -> Encoded:
        """Encode under the plan; see `Encoder.forward`."""
        keep = None if plan is None else plan.keep
        tokens = self.norm(self.tokens(x, keep, noise))
        return Encoded(tokens, self.spec.out_grid, ids=keep, covers=None if keep is None else "visible")
