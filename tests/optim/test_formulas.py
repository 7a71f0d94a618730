import json
from pathlib import Path

import pytest

from maskpre.optim.formulas import warmup_cosine

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("name", ["mae/pretrain_normpix", "mae/pretrain_pixels"])
def test_warmup_cosine_meets_the_official_points_exactly(name):
    settings = json.loads((GOLDEN / name / "case.json").read_text())["extras"]["lr_schedule"]
    for epoch, lr in settings["points_epoch_lr"]:
        ours = warmup_cosine(
            epoch,
            peak=settings["lr"],
            min_lr=settings["min_lr"],
            warmup_epochs=settings["warmup_epochs"],
            epochs=settings["epochs"],
        )
        assert ours == lr
