"""What a trainer's precision goes together with."""

from collections.abc import Iterator

from omegaconf import DictConfig, OmegaConf

from maskpre.build import Assembly
from maskpre.errors import Problem

# Where optimisers are: of pretraining, fine-tuning, and a probe that trains as fine-tuning does.
_PLACES = ("", "recipe.", "probe.recipe.")


def wants_half(cfg: DictConfig) -> bool:
    """Whether a trainer computes in float16."""
    return str(cfg.trainer.get("precision")) in ("16", "16-mixed", "16-true")


def precision_conflicts(cfg: DictConfig) -> Iterator[Problem]:
    """What can't be done in half precision, by pretraining or by an evaluation that trains."""
    if "trainer" not in cfg or not wants_half(cfg):
        return
    precision = cfg.trainer.precision
    if cfg.trainer.get("accelerator") == "cpu":
        yield Problem(
            "trainer.precision",
            f"{precision} needs a GPU, but trainer.accelerator is cpu; use bf16-mixed or 32-true",
        )
    for place in _PLACES:
        optim, limit = OmegaConf.select(cfg, f"{place}optim"), _clipping(cfg, place)
        if optim is not None and limit and _is_fused(optim):
            yield Problem(
                f"{place}optim.implementation",
                f"fused can't clip gradients ({limit}) under trainer.precision={precision}; use "
                f"{place}optim.implementation=foreach",
            )


def _clipping(cfg: DictConfig, place: str) -> str:
    """What clips gradients, as it is set: a recipe comes before the trainer. Empty if nothing does."""
    for path in (f"{place}clip_grad", "trainer.gradient_clip_val"):
        limit = OmegaConf.select(cfg, path)
        if limit is not None:
            return f"{path}={limit}" if limit else ""
    return ""


def _is_fused(optim: DictConfig) -> bool:
    """Whether an optimiser is, also where its configuration leaves that to the default."""
    return getattr(Assembly().part(optim), "implementation", None) == "fused"
