"""Two ranks score what they have fine-tuned together, each its share of the val split."""

import json
import os
from functools import partial
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from lightning import Trainer

from maskpre.config import compose
from maskpre.encoders.video_vit_classifier import VideoViTClassifier
from maskpre.evaluation.finetune import finetune
from maskpre.run_folder import RunFolder

SIZES = ["image_size=16", "num_frames=4", "frame_stride=2", "num_train=16", "num_val=13", "num_workers=0"]
SMALL = {"img_size": 16, "num_frames": 4, "patch_size": 8, "embed_dim": 12, "depth": 1, "num_heads": 2}
SETTINGS = ["checkpoint=x", "data=demo_video", "recipe=demo_video", "recipe.batch_size=8", "recipe.epochs=1"]
SETTINGS += ["recipe.test_clips=2", *(f"data.{size}" for size in SIZES)]


def work(cache: Path, path: Path, devices: int) -> None:
    """Fine-tune, and once more as if the run had died before its result was told."""
    cfg = compose([*SETTINGS, f"data.cache_dir={cache}"], "finetune")
    folder = RunFolder(path)
    folder.checkpoints.mkdir(parents=True, exist_ok=True)
    results = []
    for _ in range(2):
        torch.manual_seed(0)
        net = VideoViTClassifier(num_classes=10, global_pool="avg", drop_path_rate=0.0, options=SMALL)
        make_trainer = partial(
            Trainer, accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto"
        )
        data, recipe = instantiate(cfg.data), instantiate(cfg.recipe)
        result = finetune(net, data, recipe, folder=folder, make_trainer=make_trainer)
        results.append({"top1": result.top1, "top5": result.top5, **result.details})
    (path / f"result{os.environ.get('RANK', '0')}.json").write_text(json.dumps(results))


def test_ranks_share_the_scoring(demo_cache: Path, tmp_path: Path, on_ranks) -> None:
    work(demo_cache, tmp_path / "one", 1)
    on_ranks(2, tmp_path, partial(work, demo_cache, tmp_path / "two", 2))
    (alone, again), *ranks = (
        json.loads((tmp_path / name).read_text())
        for name in ("one/result0.json", "two/result0.json", "two/result1.json")
    )
    assert alone == again
    assert alone.keys() == {"top1", "top5", "best_top1", "views_top1", "views_top5"}
    for results in ranks:
        for result in results:
            assert result == pytest.approx(alone)
