"""Training steps per second and peak memory of an experiment, beside a plain MAE step on timm's blocks.

With --against, it stands beside itself under other overrides instead, from the same weights.

python scripts/benchmark_step.py experiment=mae --size vit_small_patch16_224 --batch 32
python scripts/benchmark_step.py experiment=spark --size resnet50 --against encoder.execution=mask
python scripts/benchmark_step.py experiment=mae data.num_train=256 data.num_val=64 --data

The reference does what is published with MAE (He et al. 2022), as one would write it down: embed all patches,
gather the visible ones, unshuffle, decode and predict all patches, compare all, count the hidden ones; AdamW
as torch makes it. Both sides run in one process, in turns, on the same batch, with parts of the same sizes;
where they are the same system they also start from the same weights and must find the same loss. The ratio
is the median over rounds of reference time / step time. Peak memory is that of a process of its own for each
side: the largest resident set on a CPU, the allocator's peak on a GPU.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from maskpre.build import build_model
from maskpre.config import compose
from maskpre.encoders.attend import set_attention
from maskpre.encoders.vit import ViT
from maskpre.masking.random import RandomMasking
from maskpre.model import MaskedModel
from maskpre.ops.noise import GivenNoise, KeyedNoise
from maskpre.predictors.mae_decoder import MAEDecoder
from maskpre.targets.pixels import PixelTarget

Batch = dict[str, Tensor]
SIDES = ("maskpre", "textbook")
# Schedules are measured half-way: at the start some of them do nothing yet.
PROGRESS = 0.5


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


class TextbookMAE(nn.Module):
    """MAE in the order the paper tells it."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.patch_embed = PatchEmbed(sizes.image, sizes.patch, 3, sizes.width)
        cells = self.patch_embed.num_patches
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


def same_system(model: MaskedModel) -> bool:
    """Whether the reference does what the model does."""
    parts = (model.encoder, *model.predictors.values(), *model.maskings.values(), *model.targets.values())
    return [type(part) for part in parts] == [ViT, MAEDecoder, RandomMasking, PixelTarget]


def textbook_beside(model: MaskedModel, name: str) -> TextbookMAE:
    """The reference in the sizes of the model, with its weights where it is the same system.

    Parts that the model doesn't have get the published sizes, the encoder those of `name` in timm.
    """
    encoder: Any = model.encoder if isinstance(model.encoder, ViT) else ViT(name=name, img_size=224)
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
    if not same_system(model):
        return TextbookMAE(Sizes(**sizes))
    masking: Any = model.maskings["main"]
    target: Any = model.targets["main"]
    book = TextbookMAE(
        Sizes(
            **sizes,
            ratio=masking.ratio,
            normalize=target.normalize == "patch",
        )
    )
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


class OurStep:
    """A training step as the training command does it."""

    def __init__(self, cfg: DictConfig, model: MaskedModel, batch: int) -> None:
        self.model, self.seed = model, cfg.seed
        self.optimizer, _ = instantiate(cfg.optim).build(
            [(name, weight) for name, weight in model.named_parameters() if not name.startswith("teachers.")],
            effective_batch=batch,
            total_steps=100_000,
            steps_per_epoch=100,
        )

    def loss(self, batch: Batch, uniform: Tensor | None = None) -> Tensor:
        """The loss; `uniform` decides the mask, if given."""
        keyed = KeyedNoise(self.seed, batch["epoch"], batch["index"])
        noise = keyed if uniform is None else GivenNoise({"mask": uniform})
        total = self.model(batch, noise=noise, progress=PROGRESS).total
        assert total is not None
        return total

    def finish(self) -> None:
        """What the model does after the optimiser."""
        self.model.after_step(PROGRESS)


class TextbookStep:
    """A training step of the reference; pictures are normalised as the experiment says."""

    def __init__(self, cfg: DictConfig, model: TextbookMAE) -> None:
        self.model = model
        self.mean, self.std = (
            torch.tensor(list(values), device=model.cls_token.device)[:, None, None]
            for values in (cfg.data.mean, cfg.data.std)
        )
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(weights, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05)

    def loss(self, batch: Batch, uniform: Tensor | None = None) -> Tensor:
        """The loss; `uniform` decides the mask, if given."""
        image = (batch["image"].float() / 255 - self.mean) / self.std
        if uniform is None:
            uniform = torch.rand(len(image), self.model.patch_embed.num_patches, device=image.device)
        return self.model(image, uniform)

    def finish(self) -> None:
        """Nothing follows the optimiser."""


Step = OurStep | TextbookStep


def one_step(step: Step, stream: Iterator[Batch], precision: str) -> float:
    """One training step on the next batch; the loss before it."""
    batch = next(stream)
    step.optimizer.zero_grad()
    kind = batch["image"].device.type
    with torch.autocast(kind, torch.bfloat16, enabled=precision == "bf16"):
        loss = step.loss(batch)
    loss.backward()
    step.optimizer.step()
    step.finish()
    return loss.item()


def configure(args: argparse.Namespace, others: Sequence[str] = ()) -> DictConfig:
    """The experiment at the size asked for, under further overrides."""
    # Long enough for any warm-up.
    overrides = ["epochs=1000", *args.overrides, *others]
    if args.size is not None:
        # The encoder's own sizes from here on, and the published decoder.
        overrides += [f"encoder.name={args.size}", f"data.image_size={args.image}"]
        cfg = compose(overrides)
        own = {"patch_size", "embed_dim", "depth", "num_heads"} & set(cfg.encoder)
        overrides += [f"encoder.{key}=null" for key in sorted(own)]
        if "options" in cfg.encoder:
            overrides += ["encoder.options=null"]
        if "width" in cfg.predictor:
            overrides += ["predictor.width=768"]
        if "num_heads" in cfg.predictor:
            overrides += ["predictor.embed_dim=512", "predictor.depth=8", "predictor.num_heads=16"]
    return compose([*overrides, f"data.batch_size={args.batch}", "data.num_workers=0"])


def batches(cfg: DictConfig, args: argparse.Namespace) -> Iterator[Batch]:
    """What the step gets: one random batch for ever, or those of the loader."""
    if args.data:
        data = instantiate(cfg.data)
        data.prepare_data()
        for batch in data.train_loader(num_steps=10**6):
            yield {name: value.to(args.device, non_blocking=True) for name, value in batch.items()}
    generator = torch.Generator().manual_seed(0)
    shape = (args.batch, cfg.data.channels, cfg.data.image_size, cfg.data.image_size)
    image = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(args.device)
    count = torch.arange(args.batch, device=args.device)
    while True:
        yield {"image": image, "index": count, "epoch": torch.zeros_like(count)}


def build(args: argparse.Namespace, names: Sequence[str]) -> tuple[DictConfig, dict[str, Step], bool]:
    """The configuration, the sides by name, and whether they are the same system."""
    cfg = configure(args)
    torch.manual_seed(cfg.seed)
    model = build_model(cfg)
    set_attention(model, cfg.attention)
    name = args.size or "vit_small_patch16_224"
    makers: dict[str, Callable[[], Step]] = {
        "maskpre": lambda: OurStep(cfg, model.to(args.device), args.batch),
        "textbook": lambda: TextbookStep(cfg, textbook_beside(model, name).to(args.device)),
        "against": lambda: other_step(args, model),
    }
    return cfg, {name: makers[name]() for name in names}, "against" in names or same_system(model)


def other_step(args: argparse.Namespace, model: MaskedModel) -> OurStep:
    """The step under the overrides of --against, from the weights of `model`."""
    cfg = configure(args, args.against)
    other = build_model(cfg)
    other.load_state_dict(model.state_dict())
    return OurStep(cfg, other.to(args.device), args.batch)


def losses(sides: dict[str, Step], batch: Batch) -> list[float]:
    """The loss of every side under the same mask."""
    uniform = None
    if "textbook" in sides:
        book: Any = sides["textbook"].model
        uniform = torch.rand(len(batch["image"]), book.patch_embed.num_patches).to(batch["image"].device)
    with torch.no_grad():
        return [side.loss(batch, uniform).item() for side in sides.values()]


def seconds(work: Callable[[], object], device: str) -> float:
    """How long the work takes, on the device's own clock where it has one."""
    if device == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000
    start_time = time.perf_counter()
    work()
    return time.perf_counter() - start_time


def measure(sides: dict[str, Step], cfg: DictConfig, args: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds per step of every side in every round, after two steps that don't count."""
    streams = {name: batches(cfg, args) for name in sides}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(-2, args.rounds):
        # Whoever comes first finds the other's data in the caches: take turns at that, too.
        for name in list(sides)[:: 1 if number % 2 else -1]:
            work = partial(one_step, sides[name], streams[name], args.precision)
            spent = seconds(work, args.device)
            if number >= 0:
                times[name].append(spent)
    return times


def peak_here(args: argparse.Namespace) -> float:
    """Peak memory in MiB of three steps of the side `args.side`, in this process."""
    cfg, sides, _ = build(args, [args.side])
    stream = batches(cfg, args)
    for _ in range(3):
        one_step(sides[args.side], stream, args.precision)
    if args.device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    # Not getrusage: its peak is inherited from the process that started this one.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**10


def peak_of(name: str, argv: Sequence[str]) -> float:
    """Peak memory of a side in a process of its own."""
    command = [sys.executable, __file__, *argv, "--side", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the process that measures {name}'s memory failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])["peak"]


def check_equal_work(sides: dict[str, Step], batch: Batch) -> str:
    """A line on how the sides' losses compare; SystemExit if the same system yields different ones."""
    ours, theirs = losses(sides, batch)
    if abs(ours - theirs) > 1e-4 * abs(theirs):
        raise SystemExit(f"the sides don't do the same work: loss {ours:.6f}, reference {theirs:.6f}")
    return f"same weights, same mask: loss {ours:.6f}, reference {theirs:.6f}"


def report(times: dict[str, list[float]], peaks: dict[str, float], args: argparse.Namespace) -> str:
    """The table."""
    lines = [f"{'':10}{'images/s':>12}{'ms/step':>12}{'peak MiB':>12}"]
    for name, spent in times.items():
        rate, peak = args.batch / median(spent), f"{peaks[name]:.0f}" if peaks else "-"
        lines.append(f"{name:10}{rate:12.2f}{1000 * median(spent):12.1f}{peak:>12}")
    ratios = [theirs / ours for ours, theirs in zip(*times.values(), strict=True)]
    lines.append(
        f"images/s ratio, median of {len(ratios)} pairs: {median(ratios):.3f} "
        f"(from {min(ratios):.3f} to {max(ratios):.3f})"
    )
    if peaks:
        ours, theirs = peaks.values()
        lines.append(f"memory ratio: {ours / theirs:.3f}")
    return "\n".join(lines)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Options, and the overrides of the configuration among them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("overrides", nargs="*", help="as for maskpre.train: experiment=mae optim.base_lr=...")
    parser.add_argument("--size", help="timm's name of the encoder, with the published decoder")
    parser.add_argument("--against", nargs="+", metavar="OVERRIDE", help="overrides of the other side")
    parser.add_argument("--image", type=int, default=224, help="side of the pictures if --size is given")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=8, help="timed steps per side")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--data", action="store_true", help="include the loader, in the same process")
    parser.add_argument("--no-memory", action="store_true", help="leave out the two runs for peak memory")
    parser.add_argument("--side", choices=[*SIDES, "against"], help=argparse.SUPPRESS)
    return parser.parse_intermixed_args(argv)


def main(argv: Sequence[str]) -> None:
    """Measure and print."""
    args = parse(argv)
    torch.set_num_threads(args.threads)
    if args.side is not None:
        print(json.dumps({"peak": peak_here(args)}))
        return
    names = ("maskpre", "against") if args.against else SIDES
    cfg, sides, comparable = build(args, names)
    device = torch.cuda.get_device_name() if args.device == "cuda" else f"CPU, {args.threads} threads"
    print(f"{device}, {args.precision}, batch {args.batch}, torch {torch.__version__}")
    if comparable:
        print(check_equal_work(sides, next(batches(cfg, args))))
    else:
        print("another system than the reference: the ratio compares systems, not implementations")
    times = measure(sides, cfg, args)
    del sides
    peaks = {} if args.no_memory else {name: peak_of(name, argv) for name in names}
    print(report(times, peaks, args))


if __name__ == "__main__":
    main(sys.argv[1:])
