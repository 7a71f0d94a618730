"""Grids, plans on several grids, regions, and aligning tokens."""

from dataclasses import replace

import pytest
import torch

from maskpre.types import Encoded, Grid, Located, MaskPlan, align, refine, split_cells

COARSE = Grid((2, 3), (32, 32))
FINE = Grid((4, 6), (16, 16))
PIXELS = Grid((64, 96), (1, 1))


def random_plan(grid=COARSE, *, batch=3, hidden=4):
    order = torch.rand(batch, grid.num_cells, generator=torch.Generator().manual_seed(0)).argsort(dim=1)
    return MaskPlan.from_order(order, num_visible=grid.num_cells - hidden, grid=grid)


def mask_of(ids, grid):
    return torch.zeros(ids.shape[0], grid.num_cells, dtype=torch.bool).scatter(1, ids, True)


class TestGrid:
    def test_sizes(self):
        assert Grid.over((64, 96), (16, 16)) == FINE
        assert (FINE.num_cells, FINE.input_size) == (24, (64, 96))
        assert Grid((8, 14, 14), (2, 16, 16)).input_size == (16, 224, 224)

    def test_refinement_counts_cells_per_axis(self):
        assert COARSE.refinement(FINE) == (2, 2)
        assert COARSE.refinement(Grid((4, 3), (16, 32))) == (2, 1)
        assert COARSE.refinement(COARSE) == (1, 1)

    @pytest.mark.parametrize(
        "finer", [Grid((1, 1), (64, 96)), Grid((3, 4), (24, 24)), Grid((4, 4), (16, 16))]
    )
    def test_cells_that_do_not_nest_are_refused(self, finer):
        with pytest.raises(
            ValueError, match=r"grid \(2, 3\) of stride \(32, 32\) can't be divided into cells"
        ):
            COARSE.refinement(finer)

    def test_input_that_is_no_multiple_is_refused(self):
        with pytest.raises(
            ValueError, match=r"input size \(64, 90\) is not a multiple of the cell size \(16, 16\)"
        ):
            Grid.over((64, 90), (16, 16))


def test_refine_repeats_as_an_upscaled_picture():
    values = torch.arange(12).view(2, 6)
    picture = values.view(2, 2, 3).repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    assert torch.equal(refine(values, COARSE, FINE), picture.flatten(1))


def test_split_cells_lists_sub_cells_in_raster_order():
    cells = split_cells(torch.arange(24)[None], FINE, COARSE)[0]
    assert cells.tolist()[0] == [0, 1, 6, 7]
    assert cells.tolist()[4] == [14, 15, 20, 21]


def test_split_cells_keeps_further_dimensions_and_undoes_refine():
    values = torch.rand(2, 6, 5)
    fine = torch.stack([refine(values[..., k], COARSE, FINE) for k in range(5)], dim=-1)
    split = split_cells(fine, FINE, COARSE)
    assert split.shape == (2, 6, 4, 5)
    assert torch.equal(split, values[:, :, None].expand(-1, -1, 4, -1))


def test_split_cells_in_three_dimensions():
    fine, coarse = Grid((4, 2, 2), (1, 8, 8)), Grid((2, 1, 2), (2, 16, 8))
    assert split_cells(torch.arange(16)[None], fine, coarse)[0].tolist() == [
        [0, 2, 4, 6],
        [1, 3, 5, 7],
        [8, 10, 12, 14],
        [9, 11, 13, 15],
    ]


class TestMaskPlan:
    def test_from_order_shows_the_first_in_order(self):
        plan = MaskPlan.from_order(torch.tensor([[4, 0, 2, 5, 3, 1]]), num_visible=2, grid=COARSE)
        assert plan.keep.tolist() == [[4, 0]]
        assert plan.hide.tolist() == [[2, 5, 3, 1]]
        assert plan.mask.tolist() == [[False, True, True, True, False, True]]

    def test_from_mask_lists_ids_in_raster_order(self):
        mask = torch.tensor([[True, False, True, True, False, False]])
        plan = MaskPlan.from_mask(mask, num_hidden=3, grid=COARSE)
        assert (plan.keep.tolist(), plan.hide.tolist()) == ([[1, 4, 5]], [[0, 2, 3]])

    def test_complement_swaps_and_forgets_what_hung_on_the_mask(self):
        plan = replace(
            random_plan(), decode=torch.zeros(3, 1, dtype=torch.long), regions={"face": torch.ones(3, 6)}
        )
        other = plan.complement()
        assert torch.equal(other.mask, ~plan.mask)
        assert other.keep is plan.hide
        assert other.hide is plan.keep
        assert other.decode is None
        assert other.regions == {}

    def test_on_a_finer_grid_mask_and_ids_agree_and_keep_the_order_of_cells(self):
        plan = random_plan()
        fine = plan.on(FINE)
        assert torch.equal(fine.mask, refine(plan.mask, COARSE, FINE))
        assert torch.equal(mask_of(fine.hide, FINE), fine.mask)
        assert torch.equal(mask_of(fine.keep, FINE), ~fine.mask)
        parent = refine(torch.arange(6)[None], COARSE, FINE)[0]
        assert torch.equal(parent[fine.keep], plan.keep.repeat_interleave(4, dim=1))
        assert (fine.grid, fine.unit) == (FINE, COARSE)

    def test_on_carries_decode_and_regions(self):
        weights = torch.rand(3, 6)
        plan = replace(random_plan(), decode=torch.tensor([[5], [0], [1]]), regions={"face": weights})
        fine = plan.on(FINE)
        assert fine.decode[0].tolist() == [16, 17, 22, 23]
        assert torch.equal(fine.region("face"), refine(weights, COARSE, FINE))

    def test_on_its_own_grid_is_itself_and_on_a_coarser_one_is_refused(self):
        plan = random_plan()
        assert plan.on(COARSE) is plan
        with pytest.raises(ValueError, match="can't be divided"):
            plan.on(Grid((1, 1), (64, 96)))

    def test_settles_asks_the_unit(self):
        plan = random_plan()
        assert plan.settles(FINE)
        assert plan.on(FINE).settles(COARSE)
        assert not random_plan(FINE).settles(COARSE)

    def test_at_finer_and_pixel_grids_repeats_the_mask(self):
        plan = random_plan()
        assert torch.equal(plan.at(COARSE), plan.mask)
        pixels = plan.at(PIXELS).view(3, 64, 96)
        assert torch.equal(pixels[:, ::32, ::32].flatten(1), plan.mask)
        assert torch.equal(pixels.flatten(1), plan.on(FINE).at(PIXELS))

    def test_at_a_coarser_grid_a_partly_hidden_cell_counts_as_visible(self):
        mask = torch.zeros(1, 24, dtype=torch.bool)
        mask[0, [0, 1, 6, 7, 2, 3, 8]] = True
        plan = MaskPlan.from_mask(mask, num_hidden=7, grid=FINE)
        assert plan.at(COARSE).tolist() == [[True, False, False, False, False, False]]

    def test_at_undoes_on(self):
        plan = random_plan()
        assert torch.equal(plan.on(FINE).at(COARSE), plan.mask)

    def test_ids_on_the_own_grid_keep_the_encoders_order(self):
        plan = random_plan()
        assert plan.ids("visible", COARSE) is plan.keep
        assert plan.ids("masked", COARSE) is plan.hide

    @pytest.mark.parametrize("region", ["masked", "visible"])
    def test_ids_on_other_grids_name_the_region_in_raster_order(self, region):
        for plan, grid in ((random_plan(), FINE), (random_plan().on(FINE), COARSE)):
            ids = plan.ids(region, grid)
            hidden = plan.at(grid)
            assert torch.equal(mask_of(ids, grid), hidden if region == "masked" else ~hidden)
            assert torch.equal(ids, ids.sort(dim=1).values)

    def test_ids_are_all_cells_where_the_region_does_not_settle(self):
        assert random_plan(FINE).ids("masked", COARSE) is None
        assert random_plan().ids("all", COARSE) is None

    def test_regions_by_name(self):
        plan = random_plan()
        assert torch.equal(plan.region("visible"), ~plan.region("masked"))
        assert plan.region("all").all()
        assert torch.equal(plan.region("decode"), plan.mask)
        decode = replace(plan, decode=torch.tensor([[5], [0], [1]]))
        assert decode.region("decode").nonzero().tolist() == [[0, 5], [1, 0], [2, 1]]

    def test_joined_regions_multiply_in_either_order(self):
        plan = random_plan()
        face, weight = torch.rand(3, 6) < 0.5, torch.rand(3, 6)
        plan = replace(plan, regions={"face": face, "weight": weight})
        assert torch.equal(plan.region("masked & face"), plan.mask & face)
        assert plan.region("masked&face").dtype == torch.bool
        assert torch.equal(plan.region("masked & weight"), plan.mask * weight)
        assert torch.equal(plan.region("weight & face & masked"), (plan.mask & face) * weight)

    def test_unknown_region_names_the_known_ones(self):
        plan = replace(random_plan(), regions={"face": torch.ones(3, 6)})
        expected = r"region 'nose' is unknown; choose from \['all', 'decode', 'face', 'masked', 'visible'\]"
        with pytest.raises(ValueError, match=expected):
            plan.region("masked & nose")


class TestAlign:
    tokens = torch.arange(6.0)[None, :, None] + torch.tensor([0.0, 10.0])[:, None, None]

    def located(self, ids):
        tokens = self.tokens if ids is None else self.tokens.gather(1, ids[..., None])
        return Located(tokens=tokens, grid=COARSE, ids=ids)

    @pytest.mark.parametrize("subset", [6, 2])
    @pytest.mark.parametrize("everything", [True, False])
    def test_picks_the_cells_of_like_in_its_order(self, subset, everything):
        source = self.located(None if everything else torch.tensor([[3, 1, 5, 0, 2, 4], [0, 1, 2, 5, 4, 3]]))
        like = self.located(torch.tensor([[2, 5, 0, 4, 1, 3], [1, 0, 5, 3, 2, 4]])[:, :subset])
        assert torch.equal(align(source, like=like), like.tokens)

    def test_all_cells_come_in_raster_order(self):
        source = self.located(torch.tensor([[3, 1, 5, 0, 2, 4], [0, 1, 2, 5, 4, 3]]))
        assert torch.equal(align(source, like=self.located(None)), self.tokens)

    def test_a_subset_of_a_subset(self):
        source = self.located(torch.tensor([[5, 1, 3], [0, 4, 2]]))
        like = self.located(torch.tensor([[3, 5], [4, 0]]))
        assert align(source, like=like)[..., 0].tolist() == [[3.0, 5.0], [14.0, 10.0]]

    def test_tokens_that_sit_alike_are_passed_on(self):
        ids = torch.tensor([[3, 1], [0, 1]])
        for source in (self.located(None), self.located(ids)):
            assert align(source, like=replace(source, tokens=source.tokens + 1)) is source.tokens

    def test_gradients_reach_the_source(self):
        source = self.located(torch.tensor([[5, 1, 3], [0, 4, 2]]))
        source.tokens.requires_grad_()
        align(source, like=self.located(torch.tensor([[3], [0]]))).sum().backward()
        assert source.tokens.grad[..., 0].tolist() == [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]

    def test_grids_must_be_equal(self):
        fine = Located(tokens=torch.zeros(2, 24, 1), grid=FINE)
        with pytest.raises(
            ValueError, match=r"tokens on grid \(2, 3\) .* can't be aligned with grid \(4, 6\)"
        ):
            align(self.located(None), like=fine)


class TestPooled:
    def test_class_token_or_mean(self):
        encoded = Encoded(tokens=torch.rand(2, 6, 4), grid=COARSE, prefix=torch.rand(2, 3, 4))
        assert torch.equal(encoded.pooled("cls"), encoded.prefix[:, 0])
        assert torch.equal(encoded.pooled("avg"), encoded.tokens.mean(dim=1))

    @pytest.mark.parametrize("prefix", [None, torch.zeros(2, 0, 4)])
    def test_no_class_token(self, prefix):
        encoded = Encoded(tokens=torch.rand(2, 6, 4), grid=COARSE, prefix=prefix)
        with pytest.raises(ValueError, match="pool is 'cls', but the encoder has no class token; use 'avg'"):
            encoded.pooled("cls")
