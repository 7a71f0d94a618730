import torch
from torch.nn import functional

from maskpre.evaluation import AttentiveHead, build_probe_head


def test_probe_head_starts_as_the_official_one():
    norm, linear = build_probe_head(256, 100, generator=torch.Generator().manual_seed(0))
    assert norm.eps == 1e-6
    assert not norm.affine
    assert abs(linear.weight.std().item() - 0.01) < 3e-4
    assert not linear.bias.any()


def test_attentive_head_equals_multi_head_cross_attention():
    torch.manual_seed(0)
    head = AttentiveHead(dim=12, num_classes=5, num_heads=3).double()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    tokens = torch.randn(2, 7, 12, dtype=torch.float64)
    normed = functional.layer_norm(tokens, (12,))
    key = (normed @ head.key.flatten(0, 1).T).unflatten(2, (3, 4)).transpose(1, 2)
    value = (normed @ head.value.flatten(0, 1).T).unflatten(2, (3, 4)).transpose(1, 2)
    query = head.query[None, :, None].expand(2, -1, -1, -1)
    attended = functional.scaled_dot_product_attention(query, key, value).flatten(1)
    expected = head.out(head.out_norm(attended))
    torch.testing.assert_close(head(tokens), expected)
