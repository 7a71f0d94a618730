import pytest
import torch

from maskpre.encoders.base import EncoderSpec
from maskpre.predictors.linear import LinearPredictor
from maskpre.types import Encoded, Grid, MaskPlan, Step

GRID = Grid.over((12, 8), (4, 4))


def make(region, *, hidden="replace"):
    spec = EncoderSpec(embed_dim=5, grid=GRID, out_grid=GRID, num_prefix_tokens=0, in_chans=3, hidden=hidden)
    return LinearPredictor(encoder=spec, out_dim=7, region=region).double()


def run(predictor, *, hidden="replace"):
    plan = MaskPlan.from_order(torch.rand(3, 6).argsort(dim=1), num_visible=2, grid=GRID)
    everywhere = torch.randn(3, 6, 5, dtype=torch.float64)
    ids = plan.keep if hidden == "drop" else None
    tokens = (
        everywhere if ids is None else torch.stack([row[i] for row, i in zip(everywhere, ids, strict=True)])
    )
    covers = "visible" if hidden == "drop" else None
    step = Step(batch={}, views={}, noise=None, progress=0.0)
    return predictor(Encoded(tokens, GRID, ids, covers=covers), plan, step), everywhere, plan


@pytest.mark.parametrize(("region", "count"), [("masked", 4), ("visible", 2), ("all", 6)])
def test_projects_the_cells_of_the_region(region, count):
    predictor = make(region)
    found, everywhere, plan = run(predictor)
    assert found.tokens.shape == (3, count, 7)
    assert found.covers == (None if region == "all" else region)
    for sample in range(3):
        cells = range(6) if found.ids is None else found.ids[sample].tolist()
        assert sorted(cells) == plan.region(region)[sample].nonzero().flatten().tolist()
        for value, cell in zip(found.tokens[sample], cells, strict=True):
            torch.testing.assert_close(value, predictor.pred(everywhere[sample, cell]))


def test_an_encoder_that_drops_gives_visible_cells():
    predictor = make("visible", hidden="drop")
    found, everywhere, plan = run(predictor, hidden="drop")
    assert found.covers == "visible"
    assert torch.equal(found.ids, plan.keep)
    torch.testing.assert_close(found.tokens[1, 0], predictor.pred(everywhere[1, plan.keep[1, 0]]))


def test_hidden_cells_of_an_encoder_that_drops_are_refused():
    with pytest.raises(
        ValueError, match=r"predictor=mae_decoder, encoder\.hidden=replace, or the region 'visible'"
    ):
        make("masked", hidden="drop")
