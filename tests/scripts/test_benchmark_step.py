import importlib.util
from collections import Counter
from pathlib import Path

import pytest
import torch

from maskpre.encoders.attend import backend_of

SMALL = [
    "data.image_size=32",
    "encoder.embed_dim=24",
    "encoder.depth=2",
    "encoder.num_heads=3",
    "predictor.embed_dim=16",
    "predictor.depth=2",
    "predictor.num_heads=2",
    "--batch=3",
    f"--threads={torch.get_num_threads()}",
]


@pytest.fixture(scope="module")
def script():
    path = Path(__file__).parents[2] / "scripts" / "benchmark_step.py"
    spec = importlib.util.spec_from_file_location("benchmark_step", path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        # A script's own folder comes first.
        patch.syspath_prepend(str(path.parent))
        spec.loader.exec_module(module)
        yield module


def test_both_sides_learn_the_same(script):
    args = script.parse(["experiment=mae", *SMALL])
    cfg, sides, comparable = script.build(args, script.SIDES)
    assert comparable
    batch = next(script.batches(cfg, args))
    uniform = torch.rand(3, 16)
    ours, theirs = (sides[name].loss(batch, uniform) for name in script.SIDES)
    torch.testing.assert_close(ours, theirs)
    (ours + theirs).backward()
    model, book = (sides[name].model for name in script.SIDES)
    grads = {name: weight.grad for name, weight in book.named_parameters() if weight.requires_grad}
    for prefix, part in (("", model.encoder), ("decoder_", model.predictors["main"])):
        for name, weight in part.named_parameters():
            if weight.requires_grad:
                other = grads.pop(name if name == "mask_token" else prefix + name)
                torch.testing.assert_close(weight.grad, other, rtol=1e-4, atol=1e-6)
    assert not grads


def test_both_sides_learn_the_same_of_convnets(script):
    args = script.parse(["experiment=spark", "predictor.width=32", "--batch=3"])
    cfg, sides, comparable = script.build(args, script.SIDES)
    assert comparable
    batch = next(script.batches(cfg, args))
    uniform = torch.rand(3, 4)
    ours, theirs = (sides[name].loss(batch, uniform) for name in script.SIDES)
    torch.testing.assert_close(ours, theirs)
    (ours + theirs).backward()
    model, book = (sides[name].model for name in script.SIDES)
    parts = {"encoder.": model.encoder, "": model.predictors["main"]}
    found = {prefix + name: w for prefix, part in parts.items() for name, w in part.named_parameters()}
    expected = dict(book.named_parameters())
    assert found.keys() == expected.keys()
    for name, weight in found.items():
        grad = expected[name].grad
        torch.testing.assert_close(weight.grad, grad, rtol=0, atol=1e-4 * float(grad.abs().max()) + 1e-6)


def test_another_experiment_is_built_from_its_own_overrides(script):
    args = script.parse(["experiment=hpm", "--against", "experiment=mae", "--threads=1"])
    args.overrides += [one for one in SMALL if not one.startswith("--")]
    args.against += args.overrides[1:]
    _, sides, comparable = script.build(args, ("maskpre", "against"))
    assert not comparable
    assert [len(sides[name].model.predictors) for name in sides] == [2, 1]


def test_kept_features_take_the_teachers_place(script):
    teacher = ["teacher=timm", "teacher.embed_dim=16", "teacher.depth=2", "teacher.num_heads=2"]
    small = [one for one in SMALL if not one.startswith("predictor.")]
    chosen = ["experiment=maskalign", "target.layers=mean", *teacher]
    kept = ["teacher_cache=disk", "data.crops_per_sample=1"]
    losses = []
    for cache in ([], kept):
        args = script.parse([*chosen, *cache, *small])
        cfg, sides, _ = script.build(args, ["maskpre"])
        stream = script.batches(cfg, args)
        seen = Counter()
        network = sides["maskpre"].model.teachers["teacher"].network
        network.register_forward_hook(lambda *_, seen=seen: seen.update(["run"]))
        losses.append([script.one_step(sides["maskpre"], stream, "fp32") for _ in range(3)])
        assert seen["run"] == (1 if cache else 3)
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_size_replaces_the_small_encoder_and_decoder(script):
    cfg = script.configure(
        script.parse(["experiment=mae", "--size", "vit_tiny_patch16_224", "--image", "96"])
    )
    model = script.build_model(cfg)
    assert model.encoder.spec.grid.shape == (6, 6)
    assert (model.encoder.spec.embed_dim, len(model.encoder.blocks)) == (192, 12)
    book = script.TextbookMAE.beside(model, cfg, "vit_tiny_patch16_224")
    assert (book.sizes.decoder_width, book.sizes.decoder_depth, book.sizes.decoder_heads) == (512, 8, 16)


def test_unequal_work_is_refused(script):
    args = script.parse(["experiment=mae", *SMALL])
    cfg, sides, _ = script.build(args, script.SIDES)
    with torch.no_grad():
        sides["textbook"].model.decoder_pred.bias += 1
    with pytest.raises(SystemExit, match=r"the sides don't do the same work: loss \d"):
        script.check_equal_work(sides, next(script.batches(cfg, args)))


def test_an_experiment_can_stand_beside_itself_under_other_overrides(script, capsys):
    argv = ["experiment=mae", *SMALL, "--rounds=1", "--no-memory", "--against"]
    script.main([*argv, "optim.base_lr=1e-3"])
    printed = capsys.readouterr().out
    assert printed.splitlines()[1] == "against: optim.base_lr=1e-3"
    assert printed.splitlines()[2].startswith("same weights, same mask: loss")
    assert {"maskpre", "against"} <= {line.split()[0] for line in printed.splitlines() if line}
    with pytest.raises(SystemExit, match=r"the sides don't do the same work: loss \d"):
        script.main([*argv, "seed=7"])


def test_clips_and_sides_that_do_other_work(script, capsys):
    """A decoder mask changes what is decoded, not the weights."""
    sizes = ["data.image_size=16", "data.num_frames=4", *SMALL[1:]]
    argv = ["experiment=videomae_v2", *sizes, "--rounds=1", "--no-memory", "--other-work", "--against"]
    script.main([*argv, "masking.decoder_ratio=0"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[2].startswith("same weights, other work: loss")
    assert any(line.startswith("images/s ratio, median of 1 pairs:") for line in printed)


def test_implementations_of_attention_can_stand_beside_each_other(script):
    args = script.parse(["experiment=mae", "attention=sdpa", *SMALL, "--against", "attention=reference"])
    cfg, sides, comparable = script.build(args, ("maskpre", "against"))
    assert comparable
    used = [backend_of(side.model.encoder.blocks[0].attn) for side in sides.values()]
    assert used == ["sdpa", "reference"]
    script.check_equal_work(sides, next(script.batches(cfg, args)))


@pytest.mark.parametrize(
    ("masking", "first_line"),
    [("random", "same weights, same mask: loss"), ("grid", "another system than the reference")],
)
def test_prints_a_table(script, capsys, masking, first_line):
    script.main(["experiment=mae", f"masking={masking}", *SMALL, "--rounds=1", "--no-memory"])
    printed = capsys.readouterr().out
    assert printed.splitlines()[1].startswith(first_line)
    rows = {line.split()[0]: line.split()[1:] for line in printed.splitlines() if line}
    assert float(rows["maskpre"][0]) > 0
    assert rows["textbook"][2] == "-"
    assert "images/s ratio, median of 1 pairs:" in printed


def test_memory_is_that_of_one_side(script):
    args = script.parse(["experiment=mae", *SMALL, "--side=textbook"])
    assert 50 < script.peak_here(args) < 50_000
