"""Official models computed through the attention kernels, in Triton's interpreter."""

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

pytest.importorskip("triton", reason="the kernels need Triton")

from maskpre import verify
from maskpre.build import build_model
from maskpre.encoders.attend import set_attention
from maskpre.golden import pretraining
from maskpre.model import MaskedModel
from maskpre.ops.attention_triton import launch

GOLDEN = Path(__file__).parent
MODELS = ("decoder_embed_dim", "mask_patch_size")


def _holds_a_model(folder: Path) -> bool:
    """Cases of masks, optimisers and timm's classifiers hold no model of this package."""
    hyperparameters = json.loads((folder / "case.json").read_text())["hyperparameters"]
    return any(name in hyperparameters for name in MODELS) and "num_classes" not in hyperparameters


CASES = list(filter(_holds_a_model, sorted(file.parent for file in GOLDEN.rglob("case.json"))))


@pytest.mark.parametrize("folder", CASES, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_official_models_are_reproduced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def build(config: DictConfig) -> MaskedModel:
        model = build_model(config)
        set_attention(model, "triton")
        return model

    def counted(name: str) -> Any:
        run = getattr(launch, name)
        return lambda *given, **named: calls.append(name) or run(*given, **named)

    monkeypatch.setattr(pretraining, "build_model", build)
    for name in ("forward", "backward"):
        monkeypatch.setattr(launch, name, counted(name))
    verdict = verify.verify(folder)
    assert verdict.ok, verdict.wrong
    assert {"forward", "backward"} <= set(calls)
    assert verdict.tensor.error < 1e-6
    assert verdict.gradient.error < 1e-6
