"""The training steps that `benchmark_step.py` times, and what they are given."""

import argparse
from collections.abc import Iterator, Sequence

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from textbook import Textbook, optimizer_of
from textbook_mae import TextbookMAE
from textbook_spark import TextbookSparK
from torch import Tensor

from maskpre.config import compose
from maskpre.data.records import DTYPES, Precision
from maskpre.model import MaskedModel
from maskpre.ops.noise import GivenNoise, KeyedNoise
from maskpre.teachers.cache import TeacherCache
from maskpre.teachers.recorder import formats_of, frozen_passes, run_teachers

Batch = dict[str, Tensor]
TEXTBOOKS: tuple[type[Textbook], ...] = (TextbookMAE, TextbookSparK)
# Schedules are measured half-way: at the start some of them do nothing yet.
PROGRESS = 0.5


class OurStep:
    """A training step as the training command does it.

    With a teacher_cache the first batch's features lie ready in memory, as if a loader had brought them.
    """

    def __init__(self, cfg: DictConfig, model: MaskedModel, batch: int) -> None:
        self.model, self.seed = model, cfg.seed
        self.cache: TeacherCache | None = (
            None if cfg.teacher_cache is None else instantiate(cfg.teacher_cache)
        )
        self.kept: Batch = {}
        named = model.named_parameters()
        trained = [(name, weight) for name, weight in named if not name.startswith("teachers.")]
        self.optimizer = optimizer_of(cfg, trained, batch)

    def loss(self, batch: Batch, uniform: Tensor | None = None) -> Tensor:
        """The loss; `uniform` decides the mask, if given."""
        if self.cache is not None and not self.kept:
            self.kept = self.features(batch, self.cache.precision)
        batch = {**batch, **self.kept}
        keyed = KeyedNoise(self.seed, batch["epoch"], batch["index"])
        noise = keyed if uniform is None else GivenNoise({"mask": uniform})
        total = self.model(batch, noise=noise, progress=PROGRESS).total
        assert total is not None
        return total

    def features(self, batch: Batch, precision: Precision) -> Batch:
        """What the frozen teachers make of a batch, as it would be kept."""
        with torch.no_grad():
            made = run_teachers(self.model, batch)
        self.model.recordings = frozen_passes(self.model)
        formats = formats_of(self.model, precision)
        return {name: value.to(DTYPES[formats[name]]) for name, value in made.items()}

    def finish(self) -> None:
        """What the model does after the optimiser."""
        self.model.after_step(PROGRESS)


class TextbookStep:
    """A training step of the reference; pictures are normalised as the experiment says."""

    def __init__(self, cfg: DictConfig, model: Textbook, batch: int) -> None:
        self.model = model
        device = next(model.parameters()).device
        self.mean, self.std = (
            torch.tensor(list(values), device=device)[:, None, None]
            for values in (cfg.data.mean, cfg.data.std)
        )
        if cfg.compile:
            model.compile()
        self.optimizer = model.optimizer(cfg, batch)

    def loss(self, batch: Batch, uniform: Tensor | None = None) -> Tensor:
        """The loss; `uniform` decides the mask, if given."""
        image = (batch["image"].float() / 255 - self.mean) / self.std
        if uniform is None:
            uniform = torch.rand(len(image), self.model.num_cells, device=image.device)
        return self.model(image, uniform)

    def finish(self) -> None:
        """Nothing follows the optimiser."""


Step = OurStep | TextbookStep


def textbook_for(model: MaskedModel) -> type[Textbook] | None:
    """The reference that does what the model does, if there is one."""
    return next((book for book in TEXTBOOKS if book.teaches(model)), None)


def one_step(step: Step, stream: Iterator[Batch], precision: str) -> float:
    """One training step on the next batch; the loss before it."""
    batch = next(stream)
    step.optimizer.zero_grad()
    kind = batch["index"].device.type
    with torch.autocast(kind, torch.bfloat16, enabled=precision == "bf16"):
        loss = step.loss(batch)
    loss.backward()
    step.optimizer.step()
    step.finish()
    return loss.item()


def chooses_experiment(overrides: Sequence[str]) -> bool:
    """Whether overrides are those of an experiment of their own."""
    return any(one.startswith("experiment=") for one in overrides)


def configure(args: argparse.Namespace, others: Sequence[str] = ()) -> DictConfig:
    """The experiment at the size asked for, under further overrides, or another with overrides of its own."""
    given = [] if chooses_experiment(others) else args.overrides
    # Long enough for any warm-up.
    overrides = ["epochs=1000", *given, *others]
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
    frames, side = cfg.data.get("num_frames"), cfg.data.image_size
    name, size = ("image", (side, side)) if frames is None else ("video", (frames, side, side))
    shape = (args.batch, cfg.data.channels, *size)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(args.device)
    count = torch.arange(args.batch, device=args.device)
    while True:
        yield {name: pixels, "index": count, "epoch": torch.zeros_like(count)}
