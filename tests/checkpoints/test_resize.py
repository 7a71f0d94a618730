from itertools import pairwise

import pytest
import torch
from torch.nn.functional import interpolate

from maskpre.checkpoints.resize import (
    fit_positions,
    resize_positions,
    resize_relative_table,
    square_window,
    stretched_offsets,
)

TABLE = "relative_position_bias_table"


def offsets(window):
    """Row and column offset of every entry of a window's table."""
    rows, cols = window
    grid = torch.meshgrid(torch.arange(1 - rows, rows), torch.arange(1 - cols, cols), indexing="ij")
    return torch.stack([axis.flatten() for axis in grid], dim=1).float()


@pytest.mark.parametrize(("source", "target"), [(11, 13), (13, 27), (27, 47)])
def test_stretched_offsets_end_where_the_target_ends(source, target):
    places = stretched_offsets(source, target)
    assert len(places) == source
    assert places[source // 2 + 1] == 1.0
    assert places[-1] == pytest.approx(target // 2, abs=2e-4)
    assert places == [-place for place in reversed(places)]
    steps = [b - a for a, b in pairwise(places[source // 2 :])]
    ratios = [b / a for a, b in pairwise(steps)]
    assert max(ratios) == pytest.approx(min(ratios), rel=1e-9)


@pytest.mark.parametrize(("source", "target"), [((6, 6), (7, 7)), ((5, 6), (6, 9)), ((7, 7), (5, 5))])
def test_a_cubic_in_the_stretched_offsets_is_met_exactly(source, target):
    heads = 3
    places = [
        torch.tensor(stretched_offsets(2 * a - 1, 2 * b - 1)) for a, b in zip(source, target, strict=True)
    ]
    y, x = torch.meshgrid(*places, indexing="ij")
    factors = torch.arange(1.0, heads + 1)

    def cubic(y, x):
        return (factors * (0.01 * y**3 - 0.02 * x**2 * y + 0.1 * x - 1)[:, None]).float()

    found = resize_relative_table(cubic(y.flatten(), x.flatten()), source=source, target=target)
    y, x = offsets(target).T
    torch.testing.assert_close(found, cubic(y, x), rtol=1e-4, atol=1e-4)


def test_rows_of_the_class_token_stay_and_dtype_too():
    table = torch.randn(7 * 7 + 3, 2, dtype=torch.float64)
    found = resize_relative_table(table, source=(4, 4), target=(6, 6))
    assert found.shape == (11 * 11 + 3, 2)
    assert found.dtype == torch.float64
    assert torch.equal(found[-3:], table[-3:])
    torch.testing.assert_close(found[60], table[24], rtol=1e-6, atol=1e-6)


def test_a_window_of_two_has_too_few_offsets_for_a_cubic_and_is_continued_by_its_edge():
    found = resize_relative_table(offsets((2, 2)), source=(2, 2), target=(4, 4))
    torch.testing.assert_close(found, offsets((4, 4)).clamp(-1, 1))


def test_a_window_of_one_is_refused():
    with pytest.raises(ValueError, match=r"window \(1, 1\) can't be resized to a window \(4, 4\)"):
        resize_relative_table(torch.zeros(1, 2), source=(1, 1), target=(4, 4))


def test_equal_sizes_change_nothing():
    table = torch.randn(49, 2)
    assert resize_relative_table(table, source=(4, 4), target=(4, 4)) is table
    positions = torch.randn(1, 17, 8)
    assert resize_positions(positions, source=(4, 4), target=(4, 4), num_prefix_tokens=1) is positions


@pytest.mark.parametrize(("source", "target"), [((4, 4), (7, 7)), ((4, 6), (3, 8)), ((14, 14), (7, 7))])
def test_absolute_positions_are_resized_plane_by_plane(source, target):
    table = torch.randn(1, 2 + source[0] * source[1], 5)
    found = resize_positions(table, source=source, target=target, num_prefix_tokens=2)
    assert torch.equal(found[:, :2], table[:, :2])
    for channel in range(5):
        plane = table[0, 2:, channel].view(1, 1, *source)
        expected = interpolate(plane, size=target, mode="bicubic", align_corners=False, antialias=False)
        torch.testing.assert_close(found[0, 2:, channel], expected.flatten())


def test_square_windows():
    assert square_window(121) == (6, 6)
    assert square_window(121 + 3) == (6, 6)
    with pytest.raises(ValueError, match="table of 35 rows belongs to no square window"):
        square_window(35)


def test_a_shared_table_is_spread_and_everything_resized():
    like = {
        f"encoder.blocks.0.attn.{TABLE}": torch.zeros(81 + 3, 2),
        f"encoder.blocks.1.attn.{TABLE}": torch.zeros(81 + 3, 2),
        "encoder.pos_embed": torch.zeros(1, 26, 4),
        "encoder.absolute_pos_embed": torch.zeros(1, 25, 4),
        "encoder.norm.weight": torch.zeros(4),
    }
    shared = torch.randn(49 + 3, 2)
    state = {
        f"encoder.rel_pos_bias.{TABLE}": shared,
        "encoder.pos_embed": torch.randn(1, 17, 4),
        "encoder.absolute_pos_embed": torch.randn(1, 16, 4),
        "encoder.norm.weight": torch.randn(4),
        "extra": torch.zeros(1),
    }
    found = fit_positions(state, like, num_prefix_tokens=1)
    assert {name: value.shape for name, value in found.items() if name != "extra"} == {
        name: value.shape for name, value in like.items()
    }
    first, second = (found[f"encoder.blocks.{i}.attn.{TABLE}"] for i in (0, 1))
    assert torch.equal(first, second)
    assert first.data_ptr() != second.data_ptr()
    torch.testing.assert_close(first, resize_relative_table(shared, source=(4, 4), target=(5, 5)))
    assert torch.equal(found["encoder.pos_embed"][:, 0], state["encoder.pos_embed"][:, 0])
    assert found["extra"] is state["extra"]


def test_a_shared_table_stays_shared_where_the_model_shares_it():
    state = {f"rel_pos_bias.{TABLE}": torch.randn(52, 2)}
    assert fit_positions(state, dict(state), num_prefix_tokens=1) == state


def test_another_number_of_heads_is_refused():
    name = f"layers.0.blocks.0.attn.{TABLE}"
    with pytest.raises(ValueError, match=r"has 3 columns, the model's has 2"):
        fit_positions({name: torch.zeros(49, 3)}, {name: torch.zeros(81, 2)}, num_prefix_tokens=0)


def test_positions_that_are_no_square_are_refused():
    with pytest.raises(ValueError, match="18 positions, 1 of them prefix, belong to no square grid"):
        fit_positions(
            {"pos_embed": torch.zeros(1, 18, 2)}, {"pos_embed": torch.zeros(1, 26, 2)}, num_prefix_tokens=1
        )
