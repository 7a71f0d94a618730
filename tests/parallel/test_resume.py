"""A run goes on exactly where another number of ranks, or another way to divide the work, stopped."""

import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch.trainer.connectors.accelerator_connector import _AcceleratorConnector
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file

from maskpre.checkpoints.export import export
from maskpre.checkpoints.read import read_checkpoint
from maskpre.checkpoints.sharded import is_sharded
from maskpre.config import compose

HALF, STEPS = 2, 4
KINDS = {
    "one": {},
    "ddp": {"devices": 2, "strategy": "ddp"},
    "fsdp2": {"devices": 2, "strategy": {"_target_": "maskpre.parallel.strategy.ShardedStrategy"}},
}
CHANGES = [("one", "ddp"), ("one", "fsdp2"), ("ddp", "one"), ("fsdp2", "one"), ("ddp", "fsdp2")]
CHANGES += [("fsdp2", "ddp"), ("fsdp2", "fsdp2")]


def of_kind(cfg: DictConfig, kind: str, folder: Path) -> DictConfig:
    changed = cfg.copy()
    OmegaConf.set_struct(changed, False)
    changed.run_dir = str(folder)
    changed.trainer.update(KINDS[kind])
    return changed


@pytest.fixture(scope="module")
def runs(tiny: list[str], tmp_path_factory: pytest.TempPathFactory, on_ranks, fit) -> Path:
    """One folder per change, one for each first half, and one for a run that nothing disturbed."""
    root = tmp_path_factory.mktemp("resumed")
    cfg = compose(
        [
            "experiment=hpm",
            *tiny,
            "predictor.embed_dim=16",
            "predictor.depth=1",
            "predictor.num_heads=2",
            "callbacks.ema={_target_: maskpre.callbacks.ema.WeightEMA, decay: 0.9}",
            "trainer.precision=64-true",
            "trainer.accelerator=cpu",
            f"max_steps={STEPS}",
        ]
    )

    def first(kinds: list[str]) -> None:
        for kind in kinds:
            fit(of_kind(cfg, kind, root / kind), stop_at=HALF)

    def second(kinds: list[str]) -> None:
        for before, after in CHANGES:
            if after in kinds:
                fit(of_kind(cfg, after, root / f"{before}-{after}"))

    with pytest.MonkeyPatch.context() as patch:
        # Lightning's FSDP2 knows no float64, in which alone equal runs can be told from similar ones.
        patch.setattr(_AcceleratorConnector, "_validate_precision_choice", lambda self: None)
        fit(of_kind(cfg, "one", root / "whole"))
        first(["one"])
        on_ranks(2, root, partial(first, ["ddp", "fsdp2"]))
        for before, after in CHANGES:
            shutil.copytree(root / before, root / f"{before}-{after}")
        second(["one"])
        on_ranks(2, root, partial(second, ["ddp", "fsdp2"]))
    return root


@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_a_run_goes_on_with_other_ranks(runs: Path, losses, before: str, after: str) -> None:
    folder = runs / f"{before}-{after}"
    assert losses(folder) == pytest.approx(losses(runs / "whole"), rel=1e-9)
    found, wanted = (read_checkpoint(path / "checkpoints/last.ckpt") for path in (folder, runs / "whole"))
    assert found["global_step"] == STEPS
    for part in ("state_dict", "ema"):
        assert found[part].keys() == wanted[part].keys()
        for name, value in wanted[part].items():
            torch.testing.assert_close(found[part][name], value, rtol=0, atol=1e-9)


def test_a_divided_checkpoint_is_a_folder_and_leaves_nothing_beside_it(runs: Path) -> None:
    assert is_sharded(runs / "fsdp2/checkpoints/last.ckpt")
    assert not is_sharded(runs / "fsdp2-one/checkpoints/last.ckpt")
    for run in ("fsdp2-one", "one-fsdp2", "fsdp2-fsdp2"):
        assert [path.name for path in (runs / run / "checkpoints").iterdir()] == ["last.ckpt"]


def test_a_divided_checkpoint_is_exported_as_one_file(runs: Path, tmp_path: Path) -> None:
    for run in ("fsdp2-fsdp2", "whole"):
        assert export(str(runs / run / "checkpoints/last.ckpt"), str(tmp_path / run), "full") < 1e-9
    found, wanted = (load_file(tmp_path / run / "model.safetensors") for run in ("fsdp2-fsdp2", "whole"))
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-9)
