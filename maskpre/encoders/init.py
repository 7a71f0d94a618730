"""Initialisations of the published systems."""

from torch import nn


def init_mae(module: nn.Module) -> None:
    """MAE's: linear weights xavier-uniform with zero bias, layer norms 1 and 0, the patch convolution
    xavier-uniform on its flattened view with torch's default bias (He et al. 2022, appendix A).
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Conv2d):
            nn.init.xavier_uniform_(part.weight.view(part.weight.shape[0], -1))
