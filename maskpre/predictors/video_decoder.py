"""VideoMAE's transformer decoder."""

from typing import cast

from timm.layers.layer_scale import LayerScale
from timm.models.vision_transformer import Block
from torch import nn

from maskpre.encoders.base import EncoderSpec
from maskpre.encoders.blocks import drop_path_rates
from maskpre.encoders.init import init_mae
from maskpre.encoders.qkv import QkvBias, Scores, adapt_attention
from maskpre.predictors.mae_decoder import MAEDecoder

STD = 0.02


class VideoDecoder(MAEDecoder):
    """MAE's decoder as VideoMAE has it (Tong et al., NeurIPS 2022).

    The embedding has no bias and keeps torch's initialisation, positions are a fixed table over the flat
    order of the cells, which no checkpoint holds, and blocks have the encoder's switches (see `VideoViT`).
    Stochastic depth has a linear rule of its own, from 0 to `drop_path_rate` in the last block. Where the
    plan names the cells to decode (VideoMAE V2, Wang et al., CVPR 2023), these alone are predicted.
    """

    def __init__(
        self,
        *,
        encoder: EncoderSpec,
        out_dim: int,
        region: str,
        embed_dim: int = 384,
        depth: int = 4,
        num_heads: int = 6,
        mlp_ratio: float = 4.0,
        qkv_bias: QkvBias = "no_key",
        scores: Scores = "dot",
        init_values: float | None = None,
        drop_path_rate: float = 0.0,
        input_of: str | None = None,
        outputs_per_value: int = 1,
    ) -> None:
        super().__init__(
            encoder=encoder,
            out_dim=out_dim,
            region=region,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            position="sincos_flat",
            input_of=input_of,
            outputs_per_value=outputs_per_value,
        )
        adapt_attention(self.blocks, qkv_bias=qkv_bias, scores=scores)
        init_mae(self.blocks)
        if init_values:
            for block in cast(list[Block], self.blocks):
                block.ls1, block.ls2 = (LayerScale(embed_dim, init_values) for _ in range(2))
        if input_of is None:
            self.embed = nn.Linear(encoder.embed_dim, embed_dim, bias=False)
            table = self.pos_embed.data
            del self.pos_embed
            self.register_buffer("pos_embed", table, persistent=False)
        if self.mask_token is not None:
            nn.init.trunc_normal_(self.mask_token, std=STD, a=-STD, b=STD)
        self._drop_path = drop_path_rates(drop_path_rate, depth)
