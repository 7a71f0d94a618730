"""A plain SparK on timm's ResNet (Tian et al. 2023): dense layers, whose results are masked."""

from dataclasses import dataclass
from math import log2
from typing import Any, Self

import timm
import torch
from omegaconf import DictConfig
from textbook import Textbook, optimizer_of
from torch import Tensor, nn
from torch.optim import Optimizer

from maskpre.encoders.convnet import ConvNet
from maskpre.masking.random import RandomMasking
from maskpre.model import MaskedModel
from maskpre.predictors.unet_decoder import UNetDecoder
from maskpre.targets.pixels import PixelTarget

MASKED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of a SparK; `channels` are those of the maps that are read, the coarsest first."""

    image: int
    cell: int
    channels: tuple[int, ...]
    width: int = 768
    ratio: float = 0.6


class Visible:
    """What all sparse layers of a network know of the batch at hand: (b, 1, rows, columns) of cells."""

    cells: Tensor

    def at(self, x: Tensor) -> Tensor:
        """The same at the resolution of a map."""
        factor = x.shape[2] // self.cells.shape[2]
        return self.cells.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)


class SparseBatchNorm(nn.BatchNorm1d):
    """Normalises visible positions by their own statistics."""

    def __init__(self, channels: int, visible: Visible) -> None:
        super().__init__(channels)
        self.visible = visible

    def forward(self, x: Tensor) -> Tensor:
        """Gather the visible positions, normalise, scatter."""
        where = self.visible.at(x)[:, 0]
        rows = x.permute(0, 2, 3, 1)
        normed = torch.zeros_like(rows)
        normed[where] = super().forward(rows[where])
        return normed.permute(0, 3, 1, 2)


def make_sparse(net: nn.Module, visible: Visible) -> None:
    """Mask what convolutions and pools give, and swap batch norms, under unchanged names."""
    for name, layer in net.named_children():
        if isinstance(layer, nn.BatchNorm2d):
            setattr(net, name, SparseBatchNorm(layer.num_features, visible))
        elif isinstance(layer, MASKED):
            layer.register_forward_hook(lambda _layer, _inputs, out: out * visible.at(out))
        else:
            make_sparse(layer, visible)


class Densify(nn.Module):
    """Tokens in the empty places of one map, and a projection to the decoder's width."""

    def __init__(self, channels: int, width: int, kernel: int, visible: Visible) -> None:
        super().__init__()
        self.norm = SparseBatchNorm(channels, visible)
        self.mask_token = nn.Parameter(torch.zeros(1, channels, 1, 1))
        same = kernel == 1 and channels == width
        self.proj = nn.Identity() if same else nn.Conv2d(channels, width, kernel, padding=kernel // 2)
        self.visible = visible

    def forward(self, x: Tensor) -> Tensor:
        """Fill and project."""
        return self.proj(torch.where(self.visible.at(x), self.norm(x), self.mask_token))


class UpBlock(nn.Module):
    """Twice the resolution and half the channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(width, width, 4, stride=2, padding=1)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.act = nn.ReLU6(inplace=True)
        self.conv2 = nn.Conv2d(width, width // 2, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Upsample."""
        x = self.act(self.bn1(self.conv1(self.up(x))))
        return self.bn2(self.conv2(x))


class TextbookSparK(Textbook):
    """SparK in the order the paper tells it."""

    def __init__(self, net: nn.Module, sizes: Sizes) -> None:
        super().__init__()
        self.sizes, self.visible = sizes, Visible()
        self.side = sizes.image // sizes.cell
        self.num_cells = self.side**2
        make_sparse(net, self.visible)
        self.encoder: Any = net
        widths = [sizes.width // 2**level for level in range(round(log2(sizes.cell)) + 1)]
        self.densify = nn.ModuleList(
            Densify(channels, width, 3 if level else 1, self.visible)
            for level, (channels, width) in enumerate(zip(sizes.channels, widths, strict=False))
        )
        self.blocks = nn.ModuleList(UpBlock(width) for width in widths[:-1])
        self.proj = nn.Conv2d(widths[-1], 3, 1)

    def mask(self, noise: Tensor) -> Tensor:
        """True where a cell is visible."""
        kept = round(self.num_cells * (1 - self.sizes.ratio))
        cells = torch.zeros_like(noise, dtype=torch.bool)
        return cells.scatter(1, noise.argsort(dim=1)[:, :kept], True)

    def encode(self, image: Tensor) -> dict[int, Tensor]:
        """The last map of every resolution."""
        net = self.encoder
        x = net.maxpool(net.act1(net.bn1(net.conv1(image * self.visible.at(image)))))
        maps = {}
        for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
            x = stage(x)
            maps[x.shape[2]] = x
        return maps

    def decode(self, maps: dict[int, Tensor]) -> Tensor:
        """The whole picture."""
        filled = [densify(maps[self.side * 2**level]) for level, densify in enumerate(self.densify)]
        x = torch.zeros_like(filled[0])
        for level, block in enumerate(self.blocks):
            x = block(x + filled[level] if level < len(filled) else x)
        return self.proj(x)

    def patchify(self, image: Tensor) -> Tensor:
        """Pixels of every cell in the order (row, column, channel)."""
        side, cell = self.side, self.sizes.cell
        cells = image.reshape(len(image), 3, side, cell, side, cell)
        return torch.einsum("bchpwq->bhwpqc", cells).reshape(len(image), side**2, -1)

    def forward(self, image: Tensor, noise: Tensor) -> Tensor:
        """Mean squared error of the hidden cells."""
        visible = self.mask(noise)
        self.visible.cells = visible.view(-1, 1, self.side, self.side)
        prediction = self.patchify(self.decode(self.encode(image)))
        target = self.patchify(image)
        mean, variance = target.mean(dim=-1, keepdim=True), target.var(dim=-1, keepdim=True)
        target = (target - mean) / (variance + 1e-6) ** 0.5
        error = ((prediction - target) ** 2).mean(dim=-1)
        return (error * ~visible).sum() / ((~visible).sum() + 1e-8)

    def optimizer(self, cfg: DictConfig, batch: int) -> Optimizer:
        """See `Textbook.optimizer`; the experiment's own, which is timm's."""
        return optimizer_of(cfg, self.named_parameters(), batch)

    @classmethod
    def teaches(cls, model: MaskedModel) -> bool:
        """See `Textbook.teaches`."""
        parts = (model.encoder, *model.predictors.values(), *model.maskings.values(), *model.targets.values())
        if [type(part) for part in parts] != [ConvNet, UNetDecoder, RandomMasking, PixelTarget]:
            return False
        encoder, decoder, masking, target = parts
        of_resnet = {"conv1", "bn1", "act1", "maxpool", "layer4"} <= dict(encoder.named_children()).keys()
        norms = {type(densify.norm) for densify in decoder.densify.values()}
        chosen = (encoder.border, masking.rounding, target.normalize)
        return of_resnet and norms == {nn.BatchNorm2d} and chosen == ("cells", "nearest", "patch")

    @classmethod
    def beside(cls, model: MaskedModel, cfg: DictConfig, size: str | None) -> Self:
        """See `Textbook.beside`; it stands only beside models that it teaches."""
        encoder: Any = model.encoder
        decoder: Any = model.predictors["main"]
        masking: Any = model.maskings["main"]
        grid, source = encoder.spec.out_grid, cfg.encoder
        options = {"drop_path_rate": source.drop_path_rate, **(source.options or {})}
        net = timm.create_model(source.name, num_classes=0, global_pool="", in_chans=3, **options)
        maps = [encoder.spec.maps[number] for _, number in sorted(decoder.sources.items())]
        book = cls(
            net,
            Sizes(
                image=grid.input_size[0],
                cell=grid.stride[0],
                channels=tuple(one.channels for one in maps),
                width=decoder.blocks[0].up.in_channels,
                ratio=masking.ratio,
            ),
        )
        weights = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
        book.load_state_dict(weights | decoder.state_dict())
        return book
