"""Probing a frozen encoder, `python -m maskpre.probe checkpoint=PATH probe=knn data=...`."""

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn

from maskpre.config import command
from maskpre.data import PretrainData
from maskpre.data.splits import Split
from maskpre.evaluation.base import Probe
from maskpre.evaluation.features import extract, inputs_for
from maskpre.evaluation.finetune import finetune
from maskpre.evaluation.models import start_encoder
from maskpre.evaluation.result import ProbeResult
from maskpre.evaluation.streaming import StreamingLinearProbe
from maskpre.run_folder import open_run_folder


def _on_features(probe: Probe, model: nn.Module, data: PretrainData, cfg: DictConfig) -> ProbeResult:
    """Compute the features of both splits once, then judge them."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    inputs = inputs_for(data).to(device)
    splits: tuple[tuple[Split, int | None], ...] = (("train", cfg.max_train), ("val", cfg.max_val))
    train, val = (
        extract(
            model.to(device),
            data.eval_loader(split, batch_size=cfg.batch_size, limit=limit),
            pool=probe.pool,
            device=device,
            normalize=inputs.normalize,
        )
        for split, limit in splits
    )
    return probe(train, val)


@command("probe")
def main(cfg: DictConfig) -> None:
    """Judge the encoder of a checkpoint and print its accuracy on the val split."""
    data: PretrainData = instantiate(cfg.data)
    data.prepare_data()
    torch.manual_seed(cfg.seed)
    model, report = start_encoder(cfg.checkpoint, data, start=cfg.start)
    print(report)
    probe: Probe | StreamingLinearProbe = instantiate(cfg.probe)
    if isinstance(probe, Probe):
        result = _on_features(probe, model, data, cfg)
    else:
        folder = open_run_folder(cfg)
        classifier = probe.classifier(model, num_classes=data.num_classes, seed=cfg.seed)
        with folder.held():
            result = finetune(
                classifier,
                data,
                probe.recipe,
                seed=cfg.seed,
                folder=folder,
                make_trainer=instantiate(cfg.trainer),
            )
    details = ", ".join(f"{name} {value:g}" for name, value in result.details.items())
    print(f"top-1 {result.top1:.2%}, top-5 {result.top5:.2%}" + (f" ({details})" if details else ""))


if __name__ == "__main__":
    main()
