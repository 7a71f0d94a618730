"""Aligning tokens."""

from dataclasses import replace

import pytest
import torch

from maskpre.types import Grid, Located, align

COARSE = Grid((2, 3), (32, 32))
FINE = Grid((4, 6), (16, 16))


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
