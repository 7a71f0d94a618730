"""Pooling of an encoder's output."""

import pytest
import torch

from maskpre.types import Encoded, Grid


class TestPooled:
    def test_class_token_or_mean(self):
        encoded = Encoded(tokens=torch.rand(2, 6, 4), grid=Grid((2, 3), (32, 32)), prefix=torch.rand(2, 3, 4))
        assert torch.equal(encoded.pooled("cls"), encoded.prefix[:, 0])
        assert torch.equal(encoded.pooled("avg"), encoded.tokens.mean(dim=1))

    @pytest.mark.parametrize("prefix", [None, torch.zeros(2, 0, 4)])
    def test_no_class_token(self, prefix):
        encoded = Encoded(tokens=torch.rand(2, 6, 4), grid=Grid((2, 3), (32, 32)), prefix=prefix)
        with pytest.raises(ValueError, match="pool is 'cls', but the encoder has no class token; use 'avg'"):
            encoded.pooled("cls")
