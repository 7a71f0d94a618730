"""Plans against what can be counted by hand."""

import csv
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from maskpre.config import compose
from maskpre.errors import UserError
from maskpre.optim import AdamWRecipe, SgdRecipe, WarmupCosine
from maskpre.planning.gpus import GPUS
from maskpre.planning.options import PlanOptions
from maskpre.planning.plan import Plan, make_plan, measured_speed, state_tensors
from maskpre.planning.report import plan_table

VIT_B = ["experiment=paper/mae_vit_b", "data.root=NOWHERE", "plan.num_samples=1281167"]


SLOW = ("colormae", "hpm", "spark", "mrmae", "videomae")


def plan_of(*overrides: str) -> Plan:
    return make_plan(compose(list(overrides), "plan"))


@pytest.fixture(scope="module")
def vit_b() -> Plan:
    job = ["trainer.devices=8", "trainer.num_nodes=8", "trainer.precision=bf16-mixed"]
    return plan_of(*VIT_B, *job, "plan.gpu=a100-80", "plan.images_per_second=900")


def forward_flops(tokens: int, width: int) -> float:
    """A transformer block: 12 width^2 weights per token, and queries times keys, shares times values."""
    return 2 * 12 * width**2 * tokens + 2 * 2 * tokens**2 * width


def test_parameters_of_mae_vit_b(vit_b: Plan) -> None:
    position, class_token = 197 * 768, 768
    block = 12 * 768**2 + 13 * 768
    encoder = 768 * 768 + 768 + class_token + position + 12 * block + 2 * 768
    assert vit_b.weights.encoder == encoder == 85_798_656
    small = 12 * 512**2 + 13 * 512
    decoder = 768 * 512 + 512 + 512 + 8 * small + 2 * 512 + 512 * 768 + 768
    assert vit_b.weights.trained == encoder - position + decoder
    assert vit_b.weights.averaged == 0


def test_work_of_mae_vit_b(vit_b: Plan) -> None:
    """49 of 196 patches and the class token are encoded, all 197 tokens decoded.

    The decoder does less: blank tokens enter its first block once per batch, and only hidden ones leave its
    last one.
    """
    embeddings = 2 * (49 * 768 * 768 + 50 * 768 * 512 + 147 * 512 * 768)
    forward = 12 * forward_flops(50, 768) + 8 * forward_flops(197, 512) + embeddings
    assert 0.93 < vit_b.cost.flops / (3 * forward) < 1.02


def test_steps_and_hours_of_mae_vit_b(vit_b: Plan) -> None:
    assert (vit_b.num_gpus, vit_b.global_batch, vit_b.micro_batch) == (64, 4096, 64)
    epochs = vit_b.steps / (1281167 // 4096)
    assert epochs == pytest.approx(round(epochs))
    images = vit_b.steps * 4096
    assert vit_b.measured == 64 * 900
    assert vit_b.gpu_hours(vit_b.measured) == pytest.approx(images / 900 / 3600)


def test_memory_of_mae_vit_b(vit_b: Plan) -> None:
    """Weights, gradients and two moments in float32; activations in bfloat16.

    A block keeps at least its two norms' inputs, queries, keys, values, and twice 4 widths of its MLP.
    """
    assert vit_b.memory.state == 4 * 4 * vit_b.weights.trained + 4 * vit_b.weights.frozen
    least = 2 * (12 * 50 * 768 * 10 + 8 * 197 * 512 * 10)
    assert least < vit_b.memory.activations < 4 * least
    batch = vit_b.memory.largest_batch(GPUS["a100-80"])
    assert vit_b.memory.total(batch) <= 0.9 * 85.9e9 < vit_b.memory.total(batch + 1)
    assert GPUS["v100-16"].memory < GPUS["a100-80"].memory
    assert vit_b.memory.largest_batch(GPUS["v100-16"]) < batch


def test_dividing_the_weights_divides_their_state() -> None:
    sizes = ["experiment=hpm", "data.image_size=32", "encoder.depth=1", "predictor.depth=1"]
    plan = plan_of(*sizes, "trainer=fsdp2", "trainer.devices=4", "plan.num_samples=640")
    weights = plan.weights
    assert weights.averaged > 0
    everything = 4 * (4 * weights.trained + weights.averaged)
    assert plan.memory.state == pytest.approx(everything / 4 + 4 * weights.frozen)


@pytest.mark.parametrize(
    "experiment", ["simmim", "maskalign", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_every_kind_of_system_is_planned(experiment: str) -> None:
    teacher = ["teacher.weights=null"] if experiment in ("maskalign", "mrmae") else []
    plan = plan_of(f"experiment={experiment}", *teacher, "plan.num_samples=1000")
    assert plan.cost.flops > 2 * plan.weights.encoder
    assert plan.memory.activations > 0
    assert plan.measured is None
    assert plan_table(plan, name="a100-80").row_count > 10


def test_optimisers_keep_what_they_keep() -> None:
    schedule = WarmupCosine(warmup_epochs=0)
    assert state_tensors(AdamWRecipe(base_lr=1e-3, schedule=schedule)) == 2
    assert state_tensors(SgdRecipe(base_lr=1e-3, schedule=schedule)) == 1


def test_speed_is_taken_from_a_run(tmp_path: Path) -> None:
    OmegaConf.save({"trainer": {"devices": 2, "num_nodes": 1}}, tmp_path / "config.yaml")
    with (tmp_path / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["step", "time/images_per_second"])
        writer.writeheader()
        writer.writerows(
            {"step": step, "time/images_per_second": rate} for step, rate in enumerate((10, 200, 220))
        )
    assert measured_speed(PlanOptions(run=str(tmp_path))) == 100


def test_what_is_not_known_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"set plan\.num_samples"):
        plan_of("experiment=paper/mae_vit_b", "data.root=NOWHERE")
    with pytest.raises(UserError, match=r"there is no .*metrics\.csv"):
        plan_of("experiment=mae", "max_steps=10", f"plan.run={tmp_path}")
