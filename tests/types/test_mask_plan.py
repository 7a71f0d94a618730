"""Plans on several grids, and regions by name."""

from dataclasses import replace

import pytest
import torch

from maskpre.types import Grid, MaskPlan, refine

COARSE = Grid((2, 3), (32, 32))
FINE = Grid((4, 6), (16, 16))
PIXELS = Grid((64, 96), (1, 1))


def random_plan(grid=COARSE, *, batch=3, hidden=4):
    order = torch.rand(batch, grid.num_cells, generator=torch.Generator().manual_seed(0)).argsort(dim=1)
    return MaskPlan.from_order(order, num_visible=grid.num_cells - hidden, grid=grid)


def mask_of(ids, grid):
    return torch.zeros(ids.shape[0], grid.num_cells, dtype=torch.bool).scatter(1, ids, True)


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
