"""A plan in words and numbers."""

from collections.abc import Iterator

from rich.table import Table

from maskpre.planning.plan import USABLE, Plan


def _short(value: float) -> str:
    """A number with three digits and a prefix: 1.23 G."""
    for size, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {prefix}"
    return f"{value:.3g} "


def _memory(plan: Plan) -> Iterator[tuple[str, str]]:
    memory, gpu = plan.memory, plan.gpu
    yield "memory, weights and their state", f"{_short(memory.state)}B"
    yield "memory, activations per sample", f"{_short(memory.activations)}B"
    yield (
        f"memory at {plan.micro_batch} samples at once",
        f"{_short(memory.total(plan.micro_batch))}B of {gpu.memory:.0f} GB",
    )
    yield f"largest batch in {USABLE:.0%} of the GPU", f"{memory.largest_batch(gpu)} samples at once"


def _speed(plan: Plan) -> Iterator[tuple[str, str]]:
    peak = plan.peak_images_per_second
    if plan.measured is None:
        yield "images/s at the GPUs' peak, never reached", f"{peak:,.0f}"
        yield "GPU-hours at the peak", f"{plan.gpu_hours(peak):,.2f}"
        yield "GPU-hours", "unknown: set plan.images_per_second or plan.run"
        return
    each = plan.measured / plan.num_gpus
    yield "images/s the data must deliver", f"{plan.measured:,.0f} ({each:,.0f} per GPU)"
    yield "share of the GPUs' peak", f"{plan.measured / peak:.1%}"
    yield "GPU-hours", f"{plan.gpu_hours(plan.measured):,.1f}"
    yield "hours", f"{plan.gpu_hours(plan.measured) / plan.num_gpus:,.2f}"


def plan_table(plan: Plan, *, name: str) -> Table:
    """One row per figure."""
    weights = plan.weights
    table = Table("what", "how much", title=f"{plan.num_gpus} x {name}")
    rows = [
        ("parameters, trained", f"{weights.trained:,}"),
        ("parameters, encoder", f"{weights.encoder:,}"),
        ("parameters, averaged", f"{weights.averaged:,}"),
        ("parameters, frozen", f"{weights.frozen:,}"),
        ("work per sample and step", f"{_short(plan.cost.flops)}FLOP"),
        (f"work per step of {plan.global_batch} samples", f"{_short(plan.flops_per_step)}FLOP"),
        (f"work of {plan.steps:,} steps", f"{_short(plan.flops_per_run)}FLOP"),
        *_memory(plan),
        *_speed(plan),
    ]
    for row in rows:
        table.add_row(*row)
    return table
