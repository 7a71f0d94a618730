from maskpre.checkpoints.report import LoadReport


def test_what_is_printed() -> None:
    report = LoadReport(
        source="a.pth",
        kind="official, MAE",
        loaded=("pos_embed", "blocks.0.w", "blocks.1.w"),
        resized={
            "pos_embed": ((1, 65, 8), (1, 17, 8)),
            "blocks.0.t": ((9, 2), (25, 2)),
            "blocks.1.t": ((9, 2), (25, 2)),
        },
        copied=("blocks.0.t", "blocks.1.t"),
        left_out={"norm.weight": "why", "norm.bias": "why", "mask_token": "no place"},
        fresh=("head.weight", "head.bias"),
    )
    assert str(report).splitlines() == [
        "a.pth (official, MAE): 3 tensors loaded",
        "  resized   pos_embed: (1, 65, 8) -> (1, 17, 8)",
        "  resized   blocks.*.t (2): (9, 2) -> (25, 2)",
        "  copied    blocks.*.t (2)",
        "  left out  norm.* (2): why",
        "  left out  mask_token: no place",
        "  fresh     head.* (2)",
    ]
