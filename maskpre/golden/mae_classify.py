"""Fine-tuning and linear-probe forwards of MAE's encoder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn
from torch.nn.functional import cross_entropy

from maskpre.checkpoints.architecture import Architecture
from maskpre.checkpoints.load import load_encoder
from maskpre.checkpoints.names_mae import encoder_keys
from maskpre.evaluation.heads import build_probe_head
from maskpre.golden.case import CannotReplayError, Case
from maskpre.golden.classify import classify, decay_groups
from maskpre.golden.compare import Replay
from maskpre.golden.mae_settings import PlainViTSettings
from maskpre.golden.pretraining import gradients, load_strictly, official_gradients, set_norm_eps

HEAD = "head."


@dataclass(kw_only=True)
class Settings(PlainViTSettings):
    """The official constructor's arguments, the head, and what the optimiser would be given."""

    num_classes: int
    mlp_ratio: float = 4.0
    global_pool: bool = True
    head: str = "finetune"
    layer_decay: float = 0.65
    weight_decay: float = 0.05


def replay(case: Case) -> Replay:
    """The encoder as `load_timm` makes it, and the head the case asks for."""
    s = case.settings(Settings)
    if s.head not in HEADS:
        raise CannotReplayError(f"{case.name}: head {s.head!r} is unknown; known are {', '.join(HEADS)}")
    net = _architecture(s).build(num_classes=s.num_classes, global_pool="avg" if s.global_pool else "token")
    set_norm_eps(net.double().eval(), s.eps)
    encoder = {name: value for name, value in encoder_keys(case.weights).items() if not name.startswith(HEAD)}
    report = load_encoder(net, encoder, source=case.name, kind="golden case")
    extras = {"missing_keys": sorted(report.fresh), "unexpected_keys": sorted(report.left_out)}
    return HEADS[s.head](case, s, net, extras)


def _architecture(s: Settings) -> Architecture:
    options = {
        "img_size": s.img_size,
        "patch_size": s.patch_size,
        "embed_dim": s.embed_dim,
        "depth": s.depth,
        "num_heads": s.num_heads,
        "mlp_ratio": s.mlp_ratio,
    }
    return Architecture("vit_base_patch16_224", options)


def _finetune(case: Case, s: Settings, net: nn.Module, extras: Mapping[str, object]) -> Replay:
    """A linear head, in evaluation mode; everything is trained."""
    _load_head(net.get_submodule("head"), case)
    out = classify(net, case)
    out.loss.backward()
    groups = decay_groups(net, layer_decay=s.layer_decay, weight_decay=s.weight_decay, policy="mae_finetune")
    return Replay(
        loss=out.loss,
        losses={"cross_entropy": out.loss},
        tensors={"features": out.features, "logits": out.logits},
        gradients=gradients(net),
        expected_gradients=official_gradients(case),
        extras={**extras, "layer_decay_groups_name_to_lrscale_wd": groups},
    )


def _linprobe(case: Case, s: Settings, net: nn.Module, extras: Mapping[str, object]) -> Replay:
    """A batch norm and a linear head on frozen features: evaluated, then trained."""
    head = build_probe_head(s.embed_dim, s.num_classes).double()
    _load_head(head, case)
    features = classify(net, case).features.detach()
    logits = head.eval()(features)
    logits_train = head.train()(features)
    loss = cross_entropy(logits_train, case.input("labels"))
    loss.backward()
    return Replay(
        loss=loss,
        losses={"cross_entropy": loss},
        tensors={
            "features": features,
            "logits": logits,
            "logits_train": logits_train,
            "running_mean_after": head.get_buffer("0.running_mean"),
            "running_var_after": head.get_buffer("0.running_var"),
        },
        gradients={f"{HEAD}{name}": value for name, value in gradients(head).items()},
        expected_gradients=official_gradients(case),
        extras=extras,
    )


def _load_head(head: nn.Module, case: Case) -> None:
    state = {name: value for name, value in case.weights.items() if name.startswith(HEAD)}
    load_strictly(head, {name.removeprefix(HEAD): value for name, value in state.items()}, case)


HEADS: Mapping[str, Callable[[Case, Settings, nn.Module, Mapping[str, object]], Replay]] = {
    "finetune": _finetune,
    "linprobe": _linprobe,
}
