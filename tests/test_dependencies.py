"""What reads something that isn't there is refused before training, with what there is."""

import pytest

from maskpre.config import compose
from maskpre.errors import ConfigError

MINING = "experiment=mae masking=hard_patches"
IMPOSSIBLE = {
    f"{MINING} ~passes.ema": [
        "masking: HardPatchMasking of pass 'student' needs another pass 'ema' that runs predictor 'losses'"
    ],
    f"{MINING} passes.ema.predictors=[]": ["needs another pass 'ema' that runs predictor 'losses'"],
    f"{MINING} passes.ema.predictors=[main]": [
        "passes.ema.predictors: network 'ema' has no predictor 'main', only losses"
    ],
    f"{MINING} masking.of=emma": ["needs another pass 'emma'", "besides it there is only ema"],
    f"{MINING} masking.of=student": ["needs another pass 'student'"],
    f"{MINING} passes.ema.masking=random maskings.random=${{masking}}": [
        "HardPatchMasking of pass 'ema' needs another pass 'ema'",
        "HardPatchMasking needs predictions for all cells, but pass 'ema' hides some; set "
        "passes.ema.masking=null",
    ],
    f"{MINING} masking.unit_size=4": ["masking: unit_size (4) must be a multiple", "nearest: 8"],
    f"{MINING} objectives.losses.region=all": [
        "objectives.losses.region: is 'all' of 'student', but the loss it reads is that of 'masked'"
    ],
    f"{MINING} targets.losses.objective=mian": [
        "targets.losses.objective: there is no objective 'mian', only losses, main; did you mean 'main'?"
    ],
    f"{MINING} targets.losses.objective=losses": [
        "targets.losses.objective: objective 'losses' reads the loss of 'losses', which must not be"
    ],
    f"{MINING} passes.student.predictors=[main]": [
        "objectives.losses.predictor: pass 'student' doesn't run predictor 'losses', only main"
    ],
    "experiment=hpm averages.ema.predictors=[losses]": [
        "averages.ema.predictors: 'losses' runs on the input of 'main': average both"
    ],
    "experiment=hpm predictors.losses.embed_dim=32": [
        "predictors.losses.input_of: 'main' works on width 64, 'losses' on 32; they must agree"
    ],
    "experiment=hpm predictors.losses.input_of=mian": [
        "predictors.losses.input_of: there is no predictor 'mian', only losses, main; did you mean 'main'?"
    ],
    "experiment=hpm predictors.losses.input_of=losses": ["'losses' is a MAEDecoder and can't give its input"],
}


@pytest.mark.parametrize(("overrides", "messages"), IMPOSSIBLE.items())
def test_impossible_readings_are_refused(overrides: str, messages: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(overrides.split())
    for message in messages:
        assert message in str(caught.value)


@pytest.mark.parametrize("experiment", ["mae", "colormae", "simmim"])
def test_hard_patches_bring_what_they_read_to_any_system(experiment: str) -> None:
    cfg = compose([f"experiment={experiment}", "masking=hard_patches"])
    assert next(iter(cfg.passes)) == "ema"
    assert cfg.predictors.losses == cfg.predictors.main
