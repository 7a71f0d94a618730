"""Scoring videos on several views each, as fine-tuning does in the end."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from hydra.utils import instantiate
from lightning import Trainer

from maskpre.checkpoints.names_videomae import official_keys
from maskpre.config import compose
from maskpre.data.transforms import CentreCrop
from maskpre.encoders.video_vit_classifier import VideoViTClassifier
from maskpre.errors import UserError
from maskpre.evaluation.augment import BatchAugment
from maskpre.evaluation.classifier import ClassifierRecipe
from maskpre.evaluation.features import inputs_for
from maskpre.evaluation.finetune import finetune
from maskpre.evaluation.models import start_classifier
from maskpre.evaluation.result import count_hits
from maskpre.evaluation.views import Views
from maskpre.optim import AdamWRecipe, WarmupCosine
from maskpre.run_folder import RunFolder

SMALL = {"img_size": 16, "num_frames": 4, "patch_size": 8, "embed_dim": 12, "depth": 1, "num_heads": 2}
RECIPE = ClassifierRecipe(
    optim=AdamWRecipe(base_lr=1e-2, schedule=WarmupCosine(warmup_epochs=0)),
    transform=CentreCrop(size=16, crop_ratio=1.0),
    augment=BatchAugment(mixup_alpha=0.0, cutmix_alpha=0.0, erase_prob=0.0),
    epochs=1,
    batch_size=12,
    test_clips=2,
    test_crops=3,
)
cpu_trainer = partial(Trainer, accelerator="cpu")


@pytest.fixture
def clips(demo_cache):
    sizes = ["image_size=16", "num_frames=4", "frame_stride=2", "num_train=24", "num_val=14", "num_workers=0"]
    overrides = [f"data.{size}" for size in sizes]
    return instantiate(
        compose(
            ["checkpoint=x", "data=demo_video", f"data.cache_dir={demo_cache}", *overrides], "finetune"
        ).data
    )


def network(**sizes):
    torch.manual_seed(0)
    options = {**SMALL, **sizes}
    return VideoViTClassifier(num_classes=10, global_pool="avg", drop_path_rate=0.0, options=options)


def top1_on_views(net, data):
    """Video by video, on one rank."""
    normalize, hits = inputs_for(data).normalize, 0
    with torch.no_grad():
        for batch in data.view_loader("val", clips=2, crops=3, batch_size=1):
            scores = net.eval()(normalize(batch["video"])).softmax(dim=1).mean(dim=0, keepdim=True)
            hits += count_hits(scores, batch["label"][:1])[0]
    return hits / 14


def test_views_are_averaged_as_probabilities():
    """One view of each video says something else: its mean probability decides."""
    views = Views(clips=2, crops=1)
    scores = torch.tensor([[0.0, 3, 2], [4, 0, 0], [0, 1, 2], [0, 9, 0]])
    assert views.mean(scores).argmax(dim=1).tolist() == [0, 1]
    assert views.labels(torch.tensor([5, 5, 7, 7])).tolist() == [5, 7]
    torch.testing.assert_close(views.mean(scores).sum(dim=1), torch.ones(2))


def test_batches_hold_whole_videos(clips):
    views = Views(clips=2, crops=3)
    for batch_size, videos in ((3, 1), (20, 3)):
        shares = [views.loader(clips, batch_size=batch_size, rank=rank, world=2) for rank in range(2)]
        batches = [batch["index"] for share in shares for batch in share]
        assert max(map(len, batches)) == 6 * videos
        assert torch.cat(batches).unique().tolist() == list(range(14))
        assert sum(map(len, batches)) == 6 * 14


def test_fine_tuning_scores_them_in_the_end(clips, tmp_path):
    folder, net = RunFolder(tmp_path), network()
    folder.checkpoints.mkdir()
    result = finetune(net, clips, RECIPE, folder=folder, make_trainer=cpu_trainer)
    assert result.details["views_top1"] == pytest.approx(top1_on_views(net, clips))
    assert result.details["views_top1"] <= result.details["views_top5"] <= 1
    rows = (folder.path / "metrics.csv").read_text().splitlines()
    assert "val/views_top1" in rows[0]

    # As if it had died there: nothing is left to train, and the result is still to be told.
    again = finetune(network(), clips, RECIPE, folder=folder, make_trainer=cpu_trainer)
    assert again == result


def test_precision_is_that_of_training(clips):
    net, seen = network(), []
    net.register_forward_hook(lambda *_: seen.append((torch.is_inference_mode_enabled(), autocast())))
    autocast = partial(torch.is_autocast_enabled, "cpu")
    trainer = partial(cpu_trainer, precision="bf16-mixed")
    finetune(net, clips, replace(RECIPE, epochs=0), make_trainer=trainer)
    assert seen
    assert set(seen) == {(True, True)}


def test_a_published_classifier_is_scored_as_it_is(clips, tmp_path):
    net = network(embed_dim=384, num_heads=6)
    ours = {f"encoder.{name}": value for name, value in net.state_dict().items()}
    official = {name.removeprefix("encoder."): value for name, value in official_keys(ours).items()}
    torch.save({"module": official}, tmp_path / "tuned.pth")
    recipe = replace(RECIPE, epochs=0, head_std=2e-5)
    tuned, _ = start_classifier(str(tmp_path / "tuned.pth"), clips, recipe, start="checkpoint")
    result = finetune(tuned, clips, recipe, make_trainer=cpu_trainer)
    assert result.details["views_top1"] == pytest.approx(top1_on_views(net, clips))


def test_views_of_pictures_are_refused_before_training(data):
    with pytest.raises(UserError, match="6 test views need videos, but FolderData has pictures"):
        finetune(network(), data, RECIPE, make_trainer=cpu_trainer)
    with pytest.raises(UserError, match="test_crops must be at least 1, got 0"):
        replace(RECIPE, test_crops=0)
