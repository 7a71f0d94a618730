"""A plain MAE on timm's blocks (He et al. 2022), written down in the order the paper tells it."""

from dataclasses import dataclass
from typing import Any, Self

import torch
from omegaconf import DictConfig
from textbook import Textbook
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from maskpre.encoders.vit import ViT
from maskpre.masking.random import RandomMasking
from maskpre.model import MaskedModel
from maskpre.predictors.mae_decoder import MAEDecoder
from maskpre.targets.pixels import PixelTarget


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of a MAE."""

    image: int
    patch: int
    width: int
    depth: int
    heads: int
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    ratio: float = 0.75
    normalize: bool = True


class TextbookMAE(Textbook):
    """MAE in the order the paper tells it."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.patch_embed = PatchEmbed(sizes.image, sizes.patch, 3, sizes.width)
        cells = self.num_cells = self.patch_embed.num_patches
        self.cls_token = nn.Parameter(torch.zeros(1, 1, sizes.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, cells + 1, sizes.width), requires_grad=False)
        self.blocks = nn.ModuleList(
            Block(sizes.width, sizes.heads, qkv_bias=True) for _ in range(sizes.depth)
        )
        self.norm = nn.LayerNorm(sizes.width, eps=1e-6)
        self.decoder_embed = nn.Linear(sizes.width, sizes.decoder_width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, sizes.decoder_width))
        table = torch.zeros(1, cells + 1, sizes.decoder_width)
        self.decoder_pos_embed = nn.Parameter(table, requires_grad=False)
        self.decoder_blocks = nn.ModuleList(
            Block(sizes.decoder_width, sizes.decoder_heads, qkv_bias=True) for _ in range(sizes.decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(sizes.decoder_width, eps=1e-6)
        self.decoder_pred = nn.Linear(sizes.decoder_width, sizes.patch**2 * 3)

    def patchify(self, image: Tensor) -> Tensor:
        """Pixels of every patch in the order (row, column, channel)."""
        patch, side = self.sizes.patch, self.sizes.image // self.sizes.patch
        cells = image.reshape(len(image), 3, side, patch, side, patch)
        return torch.einsum("bchpwq->bhwpqc", cells).reshape(len(image), side**2, -1)

    def encode(self, image: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens of the visible patches, the mask (1 = hidden), and the order that undoes the shuffle."""
        tokens = self.patch_embed(image) + self.pos_embed[:, 1:]
        visible = int(tokens.shape[1] * (1 - self.sizes.ratio))
        shuffle = noise.argsort(dim=1)
        restore = shuffle.argsort(dim=1)
        keep = shuffle[:, :visible, None].repeat(1, 1, tokens.shape[2])
        tokens = tokens.gather(1, keep)
        mask = torch.ones_like(noise)
        mask[:, :visible] = 0
        mask = mask.gather(1, restore)
        prefix = (self.cls_token + self.pos_embed[:, :1]).expand(len(image), -1, -1)
        tokens = torch.cat([prefix, tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens), mask, restore

    def decode(self, tokens: Tensor, restore: Tensor) -> Tensor:
        """Predicted pixels of every patch."""
        tokens = self.decoder_embed(tokens)
        hidden = self.mask_token.repeat(len(tokens), restore.shape[1] + 1 - tokens.shape[1], 1)
        cells = torch.cat([tokens[:, 1:], hidden], dim=1)
        cells = cells.gather(1, restore[..., None].repeat(1, 1, tokens.shape[2]))
        tokens = torch.cat([tokens[:, :1], cells], dim=1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            tokens = block(tokens)
        return self.decoder_pred(self.decoder_norm(tokens))[:, 1:]

    def forward(self, image: Tensor, noise: Tensor) -> Tensor:
        """Mean squared error of the hidden patches."""
        tokens, mask, restore = self.encode(image, noise)
        prediction = self.decode(tokens, restore)
        target = self.patchify(image)
        if self.sizes.normalize:
            mean, variance = target.mean(dim=-1, keepdim=True), target.var(dim=-1, keepdim=True)
            target = (target - mean) / (variance + 1e-6) ** 0.5
        error = ((prediction - target) ** 2).mean(dim=-1)
        return (error * mask).sum() / mask.sum()

    def optimizer(self, cfg: DictConfig, batch: int) -> Optimizer:
        """See `Textbook.optimizer`; as torch makes it."""
        weights = [weight for weight in self.parameters() if weight.requires_grad]
        return AdamW(weights, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05)

    @classmethod
    def teaches(cls, model: MaskedModel) -> bool:
        """See `Textbook.teaches`."""
        parts = (model.encoder, *model.predictors.values(), *model.maskings.values(), *model.targets.values())
        return [type(part) for part in parts] == [ViT, MAEDecoder, RandomMasking, PixelTarget]

    @classmethod
    def beside(cls, model: MaskedModel, cfg: DictConfig, size: str | None) -> Self:
        """See `Textbook.beside`."""
        encoder: Any = model.encoder
        if not isinstance(encoder, ViT):
            encoder = ViT(name=size or "vit_small_patch16_224", img_size=224)
        grid = encoder.spec.grid
        sizes = {
            "image": grid.input_size[0],
            "patch": grid.stride[0],
            "width": encoder.spec.embed_dim,
            "depth": len(encoder.blocks),
            "heads": encoder.blocks[0].attn.num_heads,
        }
        decoder: Any = model.predictors["main"]
        if isinstance(decoder, MAEDecoder):
            sizes |= {
                "decoder_width": decoder.input_dim,
                "decoder_depth": len(decoder.blocks),
                "decoder_heads": decoder.blocks[0].attn.num_heads,
            }
        if not cls.teaches(model):
            return cls(Sizes(**sizes))
        masking: Any = model.maskings["main"]
        target: Any = model.targets["main"]
        book = cls(Sizes(**sizes, ratio=masking.ratio, normalize=target.normalize == "patch"))
        book.load_state_dict(textbook_weights(encoder, decoder))
        return book


def textbook_weights(encoder: nn.Module, decoder: nn.Module) -> dict[str, Tensor]:
    """The model's weights under the names of the reference."""
    weights = dict(encoder.state_dict())
    for name, value in decoder.state_dict().items():
        weights[name if name == "mask_token" else f"decoder_{name}"] = value
    # The decoder's own table has no row for the class token; it would be zero.
    weights["decoder_pos_embed"] = nn.functional.pad(weights["decoder_pos_embed"], (0, 0, 1, 0))
    return weights
