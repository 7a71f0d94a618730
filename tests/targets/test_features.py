import pytest
import torch
from torch.nn.functional import layer_norm

from maskpre.encoders.base import EncoderSpec
from maskpre.ops.noise import GivenNoise
from maskpre.targets.features import FeatureTarget, normalize_features
from maskpre.types import OUTPUT, Encoded, Grid, Step

GRID = Grid((2, 3), (8, 8))


def spec(grid=GRID, **options):
    known = {"num_layers": 4, "layer_dim": 6, **options}
    return EncoderSpec(
        embed_dim=5, grid=grid, out_grid=grid, num_prefix_tokens=1, in_chans=3, hidden="drop", **known
    )


def target(**options):
    return FeatureTarget(grid=GRID, passes={"teacher": spec()}, **options)


@pytest.fixture
def step():
    torch.manual_seed(0)
    tokens = torch.randn(2, 7, 5, dtype=torch.float64)
    hidden = {layer: torch.randn(2, 7, 6, dtype=torch.float64) for layer in range(5)}
    encoded = Encoded(tokens[:, 1:], Grid((2, 3), (14, 14)), prefix=tokens[:, :1], hidden=hidden)
    return Step(batch={}, views={}, noise=GivenNoise({}), progress=0.0, outputs={"teacher": encoded})


def test_the_output_is_taken_as_it_is_on_the_students_cells(step) -> None:
    made = target()
    found = made(step)
    assert (made.dim, made.taps, made.layers, made.value_weights) == (5, {"teacher": OUTPUT}, None, None)
    assert found.grid == GRID
    assert torch.equal(found.tokens, step.outputs["teacher"].tokens)
    assert torch.equal(found.prefix, step.outputs["teacher"].prefix)


@pytest.mark.parametrize(
    ("layers", "chosen", "weights"),
    [
        ("mean", (1, 2, 3, 4), None),
        ("out", (4,), None),
        ("top2", (3, 4), None),
        ("mid0", (1,), None),
        ("mid3", (4,), None),
        ("linear_decay", (2, 3, 4), (1 / 6, 2 / 6, 3 / 6)),
        ([4, 1], (4, 1), None),
    ],
)
def test_layers_lie_side_by_side(step, layers, chosen, weights) -> None:
    made = target(layers=layers, normalize="whiten")
    hidden = step.outputs["teacher"].hidden
    expected = torch.cat([layer_norm(hidden[layer], (6,)) for layer in chosen], dim=2)
    torch.testing.assert_close(made(step).with_class(), expected)
    assert (made.layers.chosen, made.layers.depth, made.dim) == (chosen, 4, 6 * len(chosen))
    assert made.taps["teacher"].hidden == set(chosen)
    assert not made.taps["teacher"].output
    given = made.value_weights
    assert (
        given is None
        if weights is None
        else torch.allclose(
            given.unflatten(0, (-1, 6))[:, 0].double(), torch.tensor(weights, dtype=torch.float64)
        )
    )


def test_normalisations() -> None:
    values = torch.randn(2, 7, 6, dtype=torch.float64) * 3 + 1
    assert torch.equal(normalize_features(values, "none"), values)
    torch.testing.assert_close(normalize_features(values, "l2"), values / values.norm(dim=-1, keepdim=True))
    mean, variance = values.mean(dim=-1, keepdim=True), values.var(dim=-1, unbiased=False, keepdim=True)
    torch.testing.assert_close(
        normalize_features(values, "whiten"), (values - mean) / (variance + 1e-5).sqrt()
    )
    one = (values - values.mean()) / (values.var() + 1e-6).sqrt()
    torch.testing.assert_close(normalize_features(values, "bn"), one)
    assert normalize_features(values.bfloat16(), "bn").dtype is torch.float32


@pytest.mark.parametrize(
    ("theirs", "options", "message"),
    [
        (
            spec(Grid((3, 3), (8, 8))),
            {},
            r"gives \(3, 3\) cells, the student has \(2, 3\); choose the teacher's",
        ),
        (
            spec(num_layers=0),
            {"layers": "top2"},
            "'top2' are asked of a network that gives its final features",
        ),
        (spec(), {"layers": "top5"}, "names none or others than the layers 1 to 4"),
        (spec(), {"layers": "mid4"}, "names none or others than the layers 1 to 4"),
        (spec(), {"layers": [1, 1]}, "names none or others than the layers 1 to 4"),
        (spec(), {"layers": "topp"}, "layers='topp' is unknown; use output, mean, out, topN, midN"),
        (spec(), {"of": "student2"}, "reads the pass 'student2', but only teacher run"),
    ],
)
def test_what_it_cannot_read_is_refused(theirs, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureTarget(grid=GRID, passes={"teacher": theirs}, **options)
