"""Pre-training steps of HPM (Wang et al., CVPR 2023) with the update of the averaged teacher."""

from dataclasses import dataclass

from torch import Tensor

from maskpre.checkpoints.names_hpm import average_keys, pretraining_keys
from maskpre.golden.case import CannotReplayError, Case, Tensors
from maskpre.golden.compare import Replay
from maskpre.golden.hpm_masks import GUIDED_END, constant_share
from maskpre.golden.mae_settings import MAESettings
from maskpre.golden.plans import given_target
from maskpre.golden.pretraining import Experiment, experiment, gradients, official_gradients, step_tensors
from maskpre.masking.base import count_visible
from maskpre.model import MaskedModel
from maskpre.types import Step

STUDENT, EMA, AFTER = "student/", "ema/", "ema_after/"


@dataclass(kw_only=True)
class Settings(MAESettings):
    """The official constructor's arguments and the step's.

    `keep_ratio` is the constant share of hard patches without `guide`.
    """

    epoch: int
    total_epoch: int
    relative: bool = True
    learning_loss: bool = True
    learn_feature_loss: str = "none"
    guide: bool = True
    keep_ratio: float | None = None
    vis_mask_ratio: float = 0.0
    mlp_ratio: float = 4.0

    @property
    def progress(self) -> float:
        """Share of the training done."""
        return self.epoch / self.total_epoch

    @property
    def cells(self) -> int:
        """Patches of a picture."""
        return (self.img_size // self.patch_size) ** 2


def overrides(s: Settings, outputs: int) -> list[str]:
    """The experiment `hpm` with a case's sizes; `outputs` of the loss predictor make one value."""
    return [
        "experiment=hpm",
        *_targets(s),
        f"loss@objectives.losses.loss={'pairwise' if s.relative else 'standardized_mse'}",
        *s.sizes(),
        f"encoder.mlp_ratio={s.mlp_ratio}",
        f"encoder.secondary_ratio={s.vis_mask_ratio}",
        f"predictor.mlp_ratio={s.mlp_ratio}",
        f"predictors.losses.outputs_per_value={outputs}",
        f"masking.epochs={s.total_epoch}",
        f"averages.ema.decay.epochs={s.total_epoch}",
        "averages.ema.decay.start=0.999",
        "averages.ema.decay.end=0.9999",
        "averages.ema.decay.ramp_epochs=100",
    ]


def _targets(s: Settings) -> list[str]:
    """What is predicted; features of another network than the average are given to the model later."""
    if s.learn_feature_loss == "none":
        return [s.pixel_target]
    own = ["target=features", "target.of=ema"]
    return [*(own if s.learn_feature_loss == "ema" else ["target=pixels"]), "loss=normalized_l2"]


def _secondary_noise(case: Case, s: Settings) -> Tensors:
    """The draws that blank patches: (b, v) the student's, (b, l) the average's, told by their length."""
    if s.vis_mask_ratio == 0:
        return {}
    visible = count_visible(s.cells, s.mask_ratio)
    found = {}
    for stream, num in (("secondary", visible), ("secondary_all", s.cells)):
        given = [n for n, v in case.inputs.items() if n not in ("imgs", "noise") and v.shape[1:] == (num,)]
        if len(given) != 1:
            raise CannotReplayError(
                f"{case.name}: vis_mask_ratio={s.vis_mask_ratio} needs one input of {num} draws per picture "
                f"beside the noise of the masks; there are {', '.join(given) or 'none'}"
            )
        found[stream] = case.input(given[0])
    return found


def _features(case: Case, s: Settings) -> Tensor | None:
    """Features (b, l, k) that the case gives, where another network than the average is the teacher."""
    if s.learn_feature_loss in ("none", "ema"):
        return None
    given = [n for n, v in case.inputs.items() if n not in ("imgs", "noise") and v.dim() == 3]
    if len(given) != 1:
        raise CannotReplayError(
            f"{case.name}: learn_feature_loss={s.learn_feature_loss} needs the teacher's features as the one "
            f"further input; there are {', '.join(given) or 'none'}"
        )
    return case.input(given[0])[:, -s.cells :]


def _run(case: Case, s: Settings) -> Experiment:
    """The experiment that computes the case's step."""
    if not s.learning_loss:
        raise CannotReplayError(f"{case.name}: learning_loss=false predicts no losses; that is MAE")
    constant = constant_share(case, s.learn_feature_loss, s.keep_ratio)
    outputs = len(case.weights[f"{STUDENT}decoder_pred_losspred.bias"])
    config = experiment(case, overrides(s, outputs))
    config.masking.start = 0.0 if s.guide else constant
    config.masking.end = GUIDED_END if s.guide else constant
    student, averaged = (
        {name.removeprefix(part): value for name, value in case.weights.items() if name.startswith(part)}
        for part in (STUDENT, EMA)
    )
    weights = {**pretraining_keys(student), **average_keys(averaged)}
    noise = {"mask": case.input("noise"), **_secondary_noise(case, s)}
    return Experiment(case, config, weights, noise=noise, eps=s.eps, progress=s.progress)


def replay(case: Case) -> Replay:
    """Mask, losses and gradients of the step, and the averages after it; the weights stay as they are."""
    s = case.settings(Settings)
    run = _run(case, s)
    features = _features(case, s)
    if features is not None:
        run.config.targets.main = given_target(features.shape[2])
    model = run.build()
    run.load(model)
    if features is not None:
        model.targets["main"].values = features
    step = run.run(model)
    assert step.total is not None
    step.total.backward()
    model.after_step(s.progress)
    return Replay(
        loss=step.total,
        losses={"reconstruction": step.losses["main"], "loss_prediction": step.losses["losses"]},
        tensors={**_tensors(step, model), **_averages(model, case)},
        gradients=gradients(model),
        expected_gradients=pretraining_keys(official_gradients(case)),
        extras={"ema_decay_used": model.averages["ema"].decay(s.progress)},
    )


def _tensors(step: Step, model: MaskedModel) -> Tensors:
    """What the official code calls them; hidden cells are in raster order on both sides."""
    student = step.predictions["student"]
    return {
        **step_tensors(step, model),
        "ema_loss_pred": step.predictions["ema"]["losses"].tokens[..., 0],
        "pred_masked": student["main"].tokens,
        "loss_pred_masked": student["losses"].tokens[..., 0],
        "loss_per_patch": step.loss_maps["main"].tokens[..., 0],
    }


def _averages(model: MaskedModel, case: Case) -> Tensors:
    """The averages by the names of the case's outputs."""
    state = model.state_dict()
    found = {}
    for name in case.outputs:
        if name.startswith(AFTER):
            (ours,) = average_keys({name.removeprefix(AFTER): case.outputs[name]})
            found[name] = state[ours]
    return found
