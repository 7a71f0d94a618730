import pytest
import torch

from maskpre.encoders.base import EncoderSpec
from maskpre.masking.attentive import AttentiveMasking
from maskpre.ops.noise import GivenNoise, KeyedNoise
from maskpre.types import Encoded, Grid, Step

GRID = Grid((4, 4), (8, 8))


def spec(grid=GRID, **options):
    known = {"num_layers": 3, "layer_dim": 4, "class_attention": True, **options}
    return EncoderSpec(
        embed_dim=4, grid=grid, out_grid=grid, num_prefix_tokens=2, in_chans=3, hidden="drop", **known
    )


def masking(grid=GRID, theirs=GRID, ratio=0.5, **options):
    return AttentiveMasking(grid=grid, passes={"teacher": spec(theirs)}, ratio=ratio, **options)


def step_of(attention, noise, layer=3):
    tokens = torch.zeros(len(attention), GRID.num_cells, 4, dtype=torch.float64)
    encoded = Encoded(tokens, GRID, prefix=tokens[:, :2], attention={layer: attention})
    return Step(batch={}, views={}, noise=noise, progress=0.0, outputs={"teacher": encoded})


def attention_of(importance):
    """Two heads whose mean over the cells is the importance; both prefix tokens get a great deal."""
    first = torch.full((len(importance), 2), 9.0, dtype=importance.dtype)
    both = [torch.cat([first, share * importance], dim=1) for share in (0.5, 1.5)]
    return torch.stack(both, dim=1)


def test_it_draws_as_torchs_multinomial_does() -> None:
    torch.manual_seed(0)
    importance = torch.rand(2, 16, dtype=torch.float64)
    state = torch.get_rng_state()
    expected = torch.multinomial(importance, 16, replacement=False)
    torch.set_rng_state(state)
    exponential = torch.empty_like(importance).exponential_()
    noise = GivenNoise({"mask": -torch.expm1(-exponential)})
    plan = masking()(step_of(attention_of(importance), noise))
    assert torch.equal(torch.cat([plan.keep, plan.hide], dim=1), expected)


def test_attended_cells_are_seen_more_often() -> None:
    importance = torch.ones(4000, 16, dtype=torch.float64)
    importance[:, 5] = 4.0
    index = torch.arange(4000)
    noise = KeyedNoise(0, epoch=torch.zeros_like(index), index=index)
    plan = masking(ratio=0.9)(step_of(attention_of(importance), noise))
    assert plan.keep.shape[1] == 1
    # Drawn first with probability 4 / 19.
    share = (plan.keep[:, 0] == 5).double().mean()
    assert abs(share - 4 / 19) < 4 * (4 / 19 * 15 / 19 / 4000) ** 0.5


def test_cells_without_attention_come_last() -> None:
    importance = torch.zeros(1, 16, dtype=torch.float64)
    importance[0, 3:11] = 0.1
    uniform = torch.rand(1, 16, dtype=torch.float64)
    uniform[0, :3] = 0.0
    plan = masking()(step_of(attention_of(importance), GivenNoise({"mask": uniform})))
    assert set(plan.keep[0].tolist()) == set(range(3, 11))


def test_the_most_attended_need_no_noise() -> None:
    importance = torch.rand(3, 16, dtype=torch.float64)
    plan = masking(choice="top")(step_of(attention_of(importance), GivenNoise({})))
    assert torch.equal(plan.keep, importance.argsort(dim=1, descending=True)[:, :8])


def test_coarser_attention_decides_for_all_cells_below() -> None:
    fine = Grid((8, 8), (4, 4))
    plan = masking(grid=fine)(
        step_of(attention_of(torch.rand(2, 16, dtype=torch.float64)), KeyedNoise(0, *[torch.arange(2)] * 2))
    )
    assert plan.grid == fine
    assert torch.equal(plan.on(fine).at(GRID).repeat_interleave(4, dim=1).sum(dim=1), plan.mask.sum(dim=1))


def test_it_asks_for_one_layers_attention_only() -> None:
    taps = masking(layer=2).taps["teacher"]
    assert (taps.attention, taps.hidden, taps.output) == ({2}, set(), False)
    assert masking().taps["teacher"].attention == {3}


@pytest.mark.parametrize(
    ("passes", "options", "message"),
    [
        ({"student": spec()}, {}, "reads the pass 'teacher', but only student run; .*teacher=timm"),
        ({"teacher": spec(class_attention=False)}, {}, "has no class token whose attention can be read"),
        ({"teacher": spec(Grid((3, 3), (8, 8)))}, {}, r"attention comes on \(3, 3\) cells"),
        ({"teacher": spec()}, {"layer": 4}, "layer must be one of 1 to 3 of the pass 'teacher', got 4"),
    ],
)
def test_what_it_cannot_read_is_refused(passes, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        AttentiveMasking(grid=GRID, passes=passes, ratio=0.5, **options)
