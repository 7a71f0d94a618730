"""Layer masking: the seen area widens, borders are filled from it, and hidden pixels do not count."""

import torch
from torch import nn

from maskpre.encoders.sparse.border import LayerMasking, fill_border

SEEN = torch.zeros(1, 1, 6, 6).double()
SEEN[..., 2:4, 2:4] = 1


def picture() -> torch.Tensor:
    return torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0)).double()


def test_each_sweep_widens_by_one_position() -> None:
    once = fill_border(torch.full_like(picture(), 5.0), SEEN, 1)
    assert ((once != 0).sum(), (fill_border(picture(), SEEN, 2) != 0).all()) == (3 * 16, True)
    torch.testing.assert_close(once[..., 1:5, 1:5], torch.full((1, 3, 4, 4), 5.0).double(), rtol=1e-4, atol=0)
    assert (fill_border(picture(), SEEN, 0) == picture() * SEEN).all()


def test_no_gradient_passes_through_the_border() -> None:
    x = picture().requires_grad_()
    fill_border(x, SEEN, 3).sum().backward()
    assert torch.equal(x.grad, SEEN.expand_as(x))


def test_hidden_pixels_have_no_influence_and_windows_widen() -> None:
    layer = nn.Conv2d(3, 4, 3, padding=1).double()
    outputs = []
    for hidden in (0.0, 100.0):
        execution = LayerMasking(SEEN)
        outputs.append(execution.window(layer, execution.enter(torch.where(SEEN > 0, picture(), hidden))))
    assert torch.equal(outputs[0].data, outputs[1].data)
    assert outputs[0].seen is not None
    assert torch.equal(outputs[0].seen[0, 0, 1:5, 1:5], torch.ones(4, 4).double())
    assert outputs[0].seen.sum() == 16


def test_a_sum_is_seen_where_both_parts_are() -> None:
    wide = torch.zeros_like(SEEN)
    wide[..., 2:, 2:] = 1
    first, second = (LayerMasking(mask).enter(picture()) for mask in (SEEN, wide))
    joined = LayerMasking(SEEN).join(lambda parts: parts[0] + parts[1], [first, second])
    assert torch.equal(joined.seen, SEEN)
    assert torch.equal(joined.data, 2 * picture() * SEEN)
