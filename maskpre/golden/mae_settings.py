"""Official arguments that the ViTs of several code bases have in common."""

from dataclasses import dataclass


@dataclass(kw_only=True)
class PlainViTSettings:
    """A ViT's sizes, the epsilon of its norms, and how many samples the case has."""

    img_size: int
    patch_size: int
    embed_dim: int
    depth: int
    num_heads: int
    batch: int
    eps: float = 1e-6

    def sizes(self) -> list[str]:
        """An experiment's overrides that give its encoder these sizes."""
        return [
            f"data.image_size={self.img_size}",
            f"encoder.patch_size={self.patch_size}",
            f"encoder.embed_dim={self.embed_dim}",
            f"encoder.depth={self.depth}",
            f"encoder.num_heads={self.num_heads}",
        ]


@dataclass(kw_only=True)
class MAESettings(PlainViTSettings):
    """The sizes of an encoder and a decoder of pixels."""

    decoder_embed_dim: int
    decoder_depth: int
    decoder_num_heads: int
    mask_ratio: float
    norm_pix_loss: bool = False

    @property
    def pixel_target(self) -> str:
        """The override that chooses what is predicted."""
        return "target=pixels_patch_norm" if self.norm_pix_loss else "target=pixels"

    def sizes(self) -> list[str]:
        """An experiment's overrides that give it these sizes and this share of hidden cells."""
        return [
            *super().sizes(),
            f"predictor.embed_dim={self.decoder_embed_dim}",
            f"predictor.depth={self.decoder_depth}",
            f"predictor.num_heads={self.decoder_num_heads}",
            f"masking.ratio={self.mask_ratio}",
        ]
