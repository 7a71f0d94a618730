import pytest
import torch

from maskpre.masking.hard_patches import HardPatchMasking
from maskpre.masking.random import RandomMasking
from maskpre.masking.running_cell import RunningCellMasking, running_maps
from maskpre.masking.tube import TubeMasking
from maskpre.ops.noise import GivenNoise, KeyedNoise
from maskpre.types import Grid, Located, Step

GRID = Grid((4, 6, 4), (2, 16, 16))
INDEX = torch.arange(5)


def keyed() -> KeyedNoise:
    return KeyedNoise(0, torch.zeros_like(INDEX), INDEX)


def step(noise=None, predictions=None) -> Step:
    noise = keyed() if noise is None else noise
    return Step(batch={}, views={}, noise=noise, progress=1.0, predictions=predictions or {})


def tubes(ratio=0.9, grid=GRID) -> TubeMasking:
    return TubeMasking(grid=grid, spatial=lambda grid: RandomMasking(grid=grid, ratio=ratio, rounding="up"))


def test_frames_are_alike_and_hidden_cells_are_rounded_down():
    plan = tubes()(step())
    frames = plan.mask.unflatten(1, (4, 24))
    assert (frames == frames[:, :1]).all()
    assert frames.sum(dim=2).unique().tolist() == [int(0.9 * 24)]
    assert plan.grid == GRID
    assert plan.unit == Grid((1, 6, 4), (8, 16, 16))


def test_published_count():
    plan = tubes(grid=Grid((8, 14, 14), (2, 16, 16)))(step())
    assert plan.keep.shape == (5, 160)


def test_hard_tubes_are_those_of_the_largest_mean_loss():
    losses = torch.zeros(5, 4, 24)
    # Large in one frame alone counts less than fairly large in all.
    losses[:, 0, 20], losses[:, :, 23] = 10.0, 5.0
    predicted = Located(losses.flatten(1)[..., None], GRID)
    masking = TubeMasking(
        grid=GRID,
        spatial=lambda grid: HardPatchMasking(grid=grid, ratio=0.5, start=1 / 12, end=1 / 12),
    )
    assert masking.reads == ("ema", "losses")
    assert masking.fit(GRID) == Grid((1, 6, 4), (8, 16, 16))
    scores = torch.linspace(1, 0, 24).expand(5, -1)
    plan = masking(step(GivenNoise({"mask": scores}), {"ema": {"losses": predicted}}))
    hidden = plan.mask.unflatten(1, (4, 24))[0, 2].nonzero().flatten().tolist()
    # One hard tube; of the others the eleven largest scores, which come first.
    assert hidden == [*range(11), 23]


def test_pictures_and_attention_are_refused():
    with pytest.raises(
        ValueError, match=r"tubes need cells of \(frames, rows, columns\), the encoder's are \(6, 4\)"
    ):
        tubes(grid=Grid((6, 4), (16, 16)))


@pytest.mark.parametrize(
    ("num_hidden", "frame", "expected"), [(2, 0, "1001"), (2, 1, "0011"), (1, 0, "0001"), (3, 2, "0111")]
)
def test_queue_turns_before_each_frame(num_hidden, frame, expected):
    """From the first position: the queue 1100 is 1001 in the first frame, 0011 in the second."""
    maps = running_maps(GRID, num_hidden).unflatten(1, GRID.shape)
    cell = maps[0, frame, :2, :2].flatten().int().tolist()
    assert "".join(map(str, cell)) == expected
    assert torch.equal(maps[0, frame], maps[0, frame, :2, :2].repeat(3, 2))
    assert torch.equal(maps[1, frame], maps[0, frame + 1])


def cells(ratio=0.5, grid=GRID) -> RunningCellMasking:
    return RunningCellMasking(grid=grid, encoder=lambda grid: tubes(0.75, grid), decoder_ratio=ratio)


@pytest.mark.parametrize(("ratio", "share"), [(0.25, 0.75), (0.5, 0.5), (0.75, 0.25)])
def test_decoder_gets_its_share_in_every_frame(ratio, share):
    plan = cells(ratio)(step())
    shown = plan.region("decode").unflatten(1, (4, 24))
    assert shown.sum(dim=2).unique().tolist() == [share * 24]
    assert torch.equal(plan.decode.sort(dim=1).values, plan.decode)
    assert torch.equal(plan.mask, tubes(0.75)(step()).mask)
    assert torch.equal(plan.region("decode&masked"), plan.region("decode") & plan.mask)


def test_every_map_is_drawn_from_the_samples_noise():
    noise = {"mask": torch.rand(4, 24), "decode": torch.tensor([0.0, 0.26, 0.5, 0.99])[:, None]}
    plan = cells()(step(GivenNoise(noise)))
    assert torch.equal(~plan.region("decode"), running_maps(GRID, 2))


def test_no_decoder_mask():
    assert cells(0)(step()).decode is None


@pytest.mark.parametrize("ratio", [0.2, 1.0, -0.5])
def test_decoder_ratios_that_hide_none_or_all_are_refused(ratio):
    with pytest.raises(ValueError, match=f"decoder_ratio {ratio} hides"):
        cells(ratio)
