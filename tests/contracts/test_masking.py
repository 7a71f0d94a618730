"""What every masking of configs/masking promises, whatever it does."""

from functools import cache
from inspect import signature
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from maskpre.config.schema import SUPPLIED
from maskpre.encoders.base import EncoderSpec
from maskpre.masking.base import Masking
from maskpre.ops.noise import KeyedNoise
from maskpre.types import Encoded, Grid, Located, Step

FILES = sorted(Path(__file__).parents[2].glob("configs/masking/[!_]*.yaml"))
CONFIGS = {path.stem: path for path in FILES}
GRIDS = [Grid((8, 8), (16, 16)), Grid((14, 14), (16, 16)), Grid((16, 8), (8, 8))]
ODD_GRID = Grid((7, 9), (16, 16))
INDEX = torch.tensor([3, 0, 17, 4, 2**40])
RATIO_CONFIGS = [name for name, path in CONFIGS.items() if "ratio" in OmegaConf.load(path)]


CHEAP = {"num_images": 8}
# Those that need frames.
OF_CLIPS = ("tube", "running_cell")


def read(path):
    """A file with what it takes from files beside it, without what it brings for other groups."""
    config = OmegaConf.load(path)
    for entry in config.pop("defaults", []):
        if OmegaConf.is_dict(entry):
            ((place, name),) = entry.items()
            config = OmegaConf.merge({place.partition("@")[2]: read(path.with_name(f"{name}.yaml"))}, config)
        elif not entry.startswith(("/", "_self_")):
            config = OmegaConf.merge(read(path.with_name(f"{entry}.yaml")), config)
    return config


def load(name):
    """The masking alone, in a run of 8 epochs."""
    config = read(CONFIGS[name])
    return OmegaConf.merge({"epochs": 8, "masking": config}).masking


def clips(grid):
    """Four frame pairs of such cells."""
    return Grid((4, *grid.shape), (2, *grid.stride))


@cache
def build(name, grid):
    config = load(name)
    cheap = {key: value for key, value in CHEAP.items() if key in config}
    return complete(instantiate(config, **cheap), grid)


def complete(part, grid):
    """A masking with what the program supplies: the grid, and the pass of a teacher on the same cells."""
    spec = EncoderSpec(
        embed_dim=8,
        grid=grid,
        out_grid=grid,
        num_prefix_tokens=1,
        in_chans=3,
        hidden="drop",
        num_layers=2,
        layer_dim=8,
        class_attention=True,
    )
    given = {"grid": grid, "passes": {"teacher": spec}}
    return part(**{key: value for key, value in given.items() if key in signature(part.func).parameters})


def taught(grid, *, index):
    """What a teacher that looks at two heads attends to, a matter of the sample alone."""
    noise = KeyedNoise(9, epoch=torch.zeros_like(index), index=index)
    heads = noise.uniform("attention", 2 * (1 + grid.num_cells)).unflatten(1, (2, -1))
    tokens = torch.zeros(len(index), grid.num_cells, 8)
    return Encoded(tokens, grid, prefix=tokens[:, :1], attention={2: heads.softmax(dim=-1)})


def predictions(masking, index):
    """What the masking reads: a function of the sample alone."""
    if masking.reads is None:
        return {}
    cells = torch.arange(masking.grid.num_cells, dtype=torch.float64)
    values = torch.sin(cells * 7 + (index % 1000)[:, None])
    return {masking.reads.run: {masking.reads.predictor: Located(values[..., None], masking.grid)}}


def plan_of(name, grid, *, index=INDEX, epoch=0, seed=0, progress=0.0):
    epochs = torch.full_like(index, epoch)
    noise = KeyedNoise(seed, epoch=epochs, index=index)
    batch = {"index": index, "epoch": epochs}
    masking, outputs = build(name, grid), {"teacher": taught(grid, index=index)}
    step = Step(batch=batch, views={}, noise=noise, progress=progress, outputs=outputs)
    step.predictions.update(predictions(masking, index))
    return masking(step)


def same(first, second):
    return all(torch.equal(getattr(first, key), getattr(second, key)) for key in ("mask", "keep", "hide"))


def check_plan(plan, grid, *, samples):
    """Counts, types, and ids that agree with the mask."""
    assert (plan.grid, plan.mask.dtype) == (grid, torch.bool)
    assert plan.keep.dtype == plan.hide.dtype == torch.int64
    assert plan.mask.shape == (samples, grid.num_cells)
    assert 0 < plan.hide.shape[1] < grid.num_cells
    if plan.lengths is not None:
        check_ragged(plan, grid, samples=samples)
        return
    every = torch.cat([plan.keep, plan.hide], dim=1).sort(dim=1).values
    assert torch.equal(every, torch.arange(grid.num_cells).expand(samples, -1))
    assert plan.mask.gather(1, plan.hide).all()
    assert not plan.mask.gather(1, plan.keep).any()


def check_ragged(plan, grid, *, samples):
    """Rows begin with the cells they name, and go on with cells of the other kind, each cell once."""
    assert plan.lengths.shape == (samples,)
    assert (plan.lengths > 0).all()
    assert (plan.lengths < grid.num_cells).all()
    assert torch.equal(plan.lengths, (~plan.mask).sum(dim=1))
    for ids, hidden, region in ((plan.keep, False, "visible"), (plan.hide, True, "masked")):
        lengths = plan.num_ids(region, grid)
        counted = torch.arange(ids.shape[1]) < lengths[:, None]
        assert torch.equal(plan.mask.gather(1, ids) == hidden, counted)
        assert all(len(row.unique()) == ids.shape[1] for row in ids)
        assert torch.equal(counted.sum(dim=1), (plan.mask == hidden).sum(dim=1))


@pytest.fixture(params=CONFIGS)
def name(request):
    return request.param


@pytest.fixture(params=GRIDS, ids=lambda grid: "x".join(map(str, grid.shape)))
def grid(request, name):
    return clips(request.param) if name in OF_CLIPS else request.param


def test_config_lists_every_option(name):
    part = instantiate(load(name))
    assert {*part.keywords} == set(signature(part.func).parameters) - set(SUPPLIED[Masking])
    assert CONFIGS[name].read_text().startswith("# ")


@pytest.mark.parametrize("samples", [1, 2, 5])
def test_plans_are_whole_for_every_batch_size(name, grid, samples):
    check_plan(plan_of(name, grid, index=INDEX[:samples]), grid, samples=samples)


def test_counts_depend_on_no_sample_epoch_or_progress(name, grid):
    """Those of ragged plans do, but their bounds don't."""
    plans = [
        plan_of(name, grid, index=INDEX[start:], epoch=epoch, progress=progress)
        for start, epoch, progress in [(0, 0, 0.0), (2, 1, 0.5), (4, 7, 1.0)]
    ]
    assert len({(plan.keep.shape[1], plan.hide.shape[1]) for plan in plans}) == 1
    lengths = [plan.lengths for plan in plans]
    if build(name, grid).ragged:
        assert len(torch.cat(lengths).unique()) > 1
    else:
        assert lengths == [None] * len(plans)


@pytest.mark.parametrize("name", RATIO_CONFIGS)
def test_hides_the_ratio_up_to_one_unit(name, grid):
    plan, ratio = plan_of(name, grid), OmegaConf.load(CONFIGS[name]).ratio
    cells_per_unit = grid.num_cells // plan.unit.num_cells
    assert abs(plan.hide.shape[1] - ratio * grid.num_cells) < cells_per_unit


def test_an_odd_grid_works_or_is_refused_by_its_size(name):
    refusal, grid = None, clips(ODD_GRID) if name in OF_CLIPS else ODD_GRID
    try:
        plan = plan_of(name, grid)
    except ValueError as error:
        refusal = str(error)
    if refusal is None:
        check_plan(plan, grid, samples=len(INDEX))
    else:
        assert any(size in refusal for size in ("(7, 9)", "(112, 144)", "112 pixels"))


def test_the_same_noise_gives_the_same_plan(name, grid):
    before = torch.get_rng_state()
    assert same(plan_of(name, grid), plan_of(name, grid))
    assert torch.equal(before, torch.get_rng_state())


def test_a_plan_depends_on_its_sample_alone(name, grid):
    together, swapped = plan_of(name, grid), plan_of(name, grid, index=INDEX.flip(0))
    for row in range(len(INDEX)):
        alone = plan_of(name, grid, index=INDEX[row : row + 1])
        assert torch.equal(alone.keep[0], together.keep[row])
        assert torch.equal(alone.hide[0], swapped.hide[-1 - row])


def test_samples_epochs_and_seeds_differ_unless_nothing_is_drawn(name, grid):
    plans = [plan_of(name, grid), plan_of(name, grid, epoch=1), plan_of(name, grid, seed=1)]
    masks = torch.cat([plan.mask for plan in plans])
    distinct = len(masks.unique(dim=0))
    drawn = OmegaConf.load(CONFIGS[name]).get("offset") != "fixed"
    # Few units have few masks, so that some of 15 may coincide.
    assert distinct > len(masks) / 2 if drawn else distinct == 1


def test_plan_agrees_with_itself_on_other_grids(name, grid):
    plan = plan_of(name, grid)
    finer = Grid(tuple(2 * size for size in grid.shape), tuple(step // 2 for step in grid.stride))
    assert plan.settles(grid)
    assert plan.settles(finer)
    check_plan(plan.on(finer), finer, samples=len(INDEX))
    assert torch.equal(plan.on(finer).mask, plan.at(finer))
    assert torch.equal(plan.on(finer).at(grid), plan.mask)
    assert plan.settles(plan.unit)
    assert torch.equal(
        plan.at(plan.unit).sum(dim=1) * grid.num_cells, plan.mask.sum(dim=1) * plan.unit.num_cells
    )


def test_complement_shows_what_was_hidden(name, grid):
    plan = plan_of(name, grid)
    check_plan(plan.complement(), grid, samples=len(INDEX))
    assert torch.equal(plan.complement().mask, ~plan.mask)
    assert same(plan.complement().complement(), plan)


@pytest.mark.parametrize("name", RATIO_CONFIGS)
@pytest.mark.parametrize("ratio", [0.0, 1.0, 1.5, 0.999])
def test_a_ratio_that_hides_nothing_or_everything_is_refused(name, ratio):
    with pytest.raises(
        ValueError, match=f"mask ratio {ratio:g}|mask ratio must be between 0 and 1, got {ratio:g}"
    ):
        complete(instantiate(load(name), ratio=ratio), GRIDS[0])
