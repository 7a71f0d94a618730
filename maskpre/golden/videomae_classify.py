"""Fine-tuning forwards of VideoMAE's encoder."""

from dataclasses import dataclass

from torch.nn.functional import cross_entropy

from maskpre.checkpoints.architecture import VIDEO_VIT, Architecture
from maskpre.checkpoints.names_videomae import encoder_keys, official_keys
from maskpre.encoders.video_vit_classifier import VideoViTClassifier
from maskpre.errors import UserError
from maskpre.golden.case import CannotReplayError, Case, Tensors
from maskpre.golden.classify import decay_groups
from maskpre.golden.compare import Replay
from maskpre.golden.pretraining import gradients, load_strictly, official_gradients
from maskpre.golden.videomae_settings import VideoSettings, read_settings, refuse_learnable_positions


@dataclass(kw_only=True)
class Settings(VideoSettings):
    """The official constructor's arguments, and what the optimiser would be given."""

    embed_dim: int
    depth: int
    num_heads: int
    num_classes: int
    use_mean_pooling: bool = True
    fc_drop_rate: float = 0.0
    head_drop_rate: float = 0.0
    init_scale: float = 0.0
    in_chans: int = 3
    layer_decay: float = 0.75
    weight_decay: float = 0.05


def replay(case: Case) -> Replay:
    """Scores of the mean token in evaluation mode, and the groups that fine-tuning makes of parameters."""
    s = read_settings(case, Settings)
    refuse_learnable_positions(case, s.use_learnable_pos_emb)
    if not s.use_mean_pooling:
        raise CannotReplayError(f"{case.name}: use_mean_pooling must be true; tokens are always averaged")
    net = _network(case, s)
    load_strictly(net, encoder_keys(case.weights), case)
    features = net.forward_head(net.forward_features(case.input("videos")), pre_logits=True)
    logits = net.head(features)
    loss = cross_entropy(logits, case.input("labels"))
    loss.backward()
    return Replay(
        loss=loss,
        losses={"cross_entropy": loss},
        tensors={"features": features, "logits": logits},
        gradients=_official(gradients(net)),
        expected_gradients=official_gradients(case),
        info={"lr_scale_and_weight_decay": _groups(net, s)},
    )


def _network(case: Case, s: Settings) -> VideoViTClassifier:
    options = {
        "img_size": s.img_size,
        "num_frames": s.num_frames,
        "in_chans": s.in_chans,
        "patch_size": s.patch_size,
        "tubelet_size": s.tubelet_size,
        "embed_dim": s.embed_dim,
        "depth": s.depth,
        "num_heads": s.num_heads,
        **s.blocks(),
    }
    try:
        net = Architecture(VIDEO_VIT, options).build(num_classes=s.num_classes, global_pool="avg")
    except UserError as error:
        raise CannotReplayError(f"{case.name}: {error}") from error
    assert isinstance(net, VideoViTClassifier)
    return net.double().eval()


def _official(state: Tensors) -> Tensors:
    """Under the official names of a model that is nothing but encoder and head."""
    named = official_keys({f"encoder.{name}": value for name, value in state.items()})
    return {name.removeprefix("encoder."): value for name, value in named.items()}


def _groups(net: VideoViTClassifier, s: Settings) -> dict[str, list[float]]:
    """Learning-rate scale and weight decay by official name."""
    groups = decay_groups(net, layer_decay=s.layer_decay, weight_decay=s.weight_decay, policy="videomae")
    return {
        official: groups[name]
        for name, parameter in net.named_parameters()
        for official in _official({name: parameter})
    }
