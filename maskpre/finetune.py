"""Fine-tuning, `python -m maskpre.finetune checkpoint=PATH data=... recipe=mae`."""

from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from maskpre.config import command
from maskpre.data import PretrainData
from maskpre.evaluation.classifier import ClassifierRecipe
from maskpre.evaluation.finetune import finetune
from maskpre.evaluation.models import read_head_rows, recompute_activations, start_classifier
from maskpre.run_folder import open_run_folder


@command("finetune")
def main(cfg: DictConfig) -> None:
    """Train a classifier that starts from the checkpoint, and print how well it does on the val split."""
    data: PretrainData = instantiate(cfg.data)
    data.prepare_data()
    recipe: ClassifierRecipe = instantiate(cfg.recipe)
    torch.manual_seed(cfg.seed)
    rows = None if cfg.head_rows is None else read_head_rows(cfg.head_rows, data.num_classes)
    model, report = start_classifier(cfg.checkpoint, data, recipe, start=cfg.start, head_rows=rows)
    print(report)
    if cfg.activation_checkpointing:
        recompute_activations(model)
    folder = open_run_folder(cfg)
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    with folder.held():
        print(f"run folder: {folder.path}")
        result = finetune(
            model,
            data,
            recipe,
            seed=cfg.seed,
            folder=folder,
            make_trainer=instantiate(cfg.trainer),
            config=config,
            architecture=report.architecture,
        )
    print(f"top-1 {result.top1:.2%}, top-5 {result.top5:.2%} (best top-1 {result.details['best_top1']:.2%})")
    if "views_top1" in result.details:
        views = [f"top-{k} {result.details[f'views_top{k}']:.2%}" for k in (1, 5)]
        print(f"on all views: {', '.join(views)}")
    print(f"checkpoints     {folder.checkpoints}")


if __name__ == "__main__":
    main()
