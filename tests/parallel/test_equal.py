"""Two ranks learn what one rank learns of the same global batches, however the weights are stored."""

from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch.trainer.connectors.accelerator_connector import _AcceleratorConnector
from omegaconf import DictConfig, OmegaConf

from maskpre.checkpoints.read import read_checkpoint
from maskpre.config import compose

STEPS = 4
DECODER = ["predictor.embed_dim=16", "predictor.depth=1", "predictor.num_heads=2"]
TEACHER = ["teacher.weights=null", "teacher.embed_dim=16", "teacher.depth=2", "teacher.num_heads=2"]
CONVNET = ["encoder.options={layers:[1,1,1,1],channels:[8,8,16,16],output_stride:16}"]
SYSTEMS = {
    "mae": DECODER,
    "hpm": DECODER,
    "maskalign": [*TEACHER, "target.layers=top2", "encoder.depth=2"],
    "spark": CONVNET,
    "simmim": [],
    "mixed": [
        *DECODER,
        "encoder.depth=2",
        "trainer.precision=bf16-mixed",
        "trainer.gradient_clip_val=0.1",
        "trainer.accumulate_grad_batches=2",
        "activation_checkpointing=true",
    ],
    "variable_ratio": ["masking=variable_ratio", *DECODER],
    "clusters": ["target=clusters", "target.num_prototypes=16", *DECODER],
    "sigma": [
        "data.num_frames=4",
        "data.num_train=32",
        "data.num_val=8",
        "data.batch_size=8",
        "optim.schedule.warmup_epochs=0.5",
        "masking.spatial.ratio=0.75",
        "target.num_prototypes=8",
        "teacher=none",
        "target@target.values=pixels_channel_norm",
        "target.values.normalize=channel",
        "target.dim=16",
        "target.hidden_dims=[16]",
        "predictor.embed_dim=16",
        "predictor.depth=1",
    ],
}
VARIANTS_OF_MAE = ("mixed", "variable_ratio", "clusters")


KINDS = {
    "one": {},
    "ddp": {"devices": 2, "strategy": "ddp"},
    "fsdp2": {"devices": 2, "strategy": {"_target_": "maskpre.parallel.strategy.ShardedStrategy"}},
}


def configure(name: str, tiny: list[str]) -> DictConfig:
    common = [line for line in tiny if name != "spark" or not line.startswith("encoder.")]
    return compose(
        [
            f"experiment={'mae' if name in VARIANTS_OF_MAE else name}",
            *common,
            "trainer.precision=64-true",
            *SYSTEMS[name],
            "trainer.accelerator=cpu",
            f"max_steps={STEPS}",
            "callbacks.pictures=null",
        ]
    )


def of_kind(cfg: DictConfig, kind: str, folder: Path) -> DictConfig:
    changed = cfg.copy()
    OmegaConf.set_struct(changed, False)
    changed.run_dir = str(folder)
    changed.trainer.update(KINDS[kind])
    return changed


@pytest.fixture(scope="module")
def runs(tiny: list[str], tmp_path_factory: pytest.TempPathFactory, on_ranks, fit) -> dict[str, Path]:
    """Folders of all runs by kind: one rank, DDP and FSDP2 on two."""
    root = tmp_path_factory.mktemp("ranks")
    configs = {name: configure(name, tiny) for name in SYSTEMS}

    def work(kind: str) -> None:
        for name, cfg in configs.items():
            fit(of_kind(cfg, kind, root / kind / name))

    with pytest.MonkeyPatch.context() as patch:
        # Lightning's FSDP2 knows no float64, in which alone equal runs can be told from similar ones.
        patch.setattr(_AcceleratorConnector, "_validate_precision_choice", lambda self: None)
        work("one")
        for kind in ("ddp", "fsdp2"):
            (root / kind).mkdir()
            on_ranks(2, root / kind, partial(work, kind))
    return {kind: root / kind for kind in KINDS}


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one if one[name].numel())


def state(folder: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(folder / "checkpoints/last.ckpt")["state_dict"]


@pytest.mark.parametrize("name", [name for name in SYSTEMS if name != "mixed"])
@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_two_ranks_equal_one(runs: dict[str, Path], losses, kind: str, name: str) -> None:
    one, two = losses(runs["one"] / name), losses(runs[kind] / name)
    assert len(one) == STEPS
    assert two == pytest.approx(one, rel=1e-9)
    assert largest_difference(state(runs["one"] / name), state(runs[kind] / name)) < 1e-9


def test_dividing_the_weights_changes_nothing_under_mixed_precision(runs: dict[str, Path], losses) -> None:
    """With gradients clipped and accumulated, and activations computed again."""
    whole, divided = losses(runs["ddp"] / "mixed"), losses(runs["fsdp2"] / "mixed")
    assert divided == pytest.approx(whole, rel=1e-6)
    assert largest_difference(state(runs["ddp"] / "mixed"), state(runs["fsdp2"] / "mixed")) < 1e-6
