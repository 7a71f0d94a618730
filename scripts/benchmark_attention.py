"""Time and memory of `masked_attention`, forward and backward, beside torch's own ways to the same result.

python scripts/benchmark_attention.py --device cuda --out docs/attention/cuda
python scripts/benchmark_attention.py --device cpu --threads 1 --out docs/attention/cpu

Every side starts from packed projections and ends with their one gradient, all copies in between included.
Sides take turns on rotating inputs; a ratio is the median over rounds of the other side's time / ours. On a
GPU the others are torch's pinned implementations with written-out masks and biases, FlexAttention and
attention of varying lengths, where they take the shape; the floor is what moving the tensors once and
multiplying takes at the speeds measured in the same run. On a CPU the other side is a call of
scaled_dot_product_attention written by hand, and time is processor time, which other programs hardly
disturb. Values are compared before anything is timed.
"""

import argparse
import itertools
import json
import platform
import re
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from attention_peers import Peer, peers_of
from attention_workloads import SHAPES, Problem, Shape, floor, make_problem
from torch import Tensor
from torch.backends import cudnn

from maskpre.ops.masked_attention import masked_attention, masked_attention_qkv

Run = Callable[[], tuple[Tensor, ...]]


def ours(problem: Problem) -> Tensor:
    """The output (t, h, d) through the dispatcher."""
    if problem.shape.keys is None:
        return masked_attention_qkv(problem.projections[0], **problem.options)
    (query,) = problem.projections[0].unbind(1)
    key, value = problem.projections[1].unbind(1)
    return masked_attention(query, key, value, max_q=problem.shape.tokens, max_k=problem.shape.keys)


def both_passes(call: Peer, problem: Problem) -> tuple[Tensor, ...]:
    """The output and all gradients."""
    out = call(problem)
    return out, *torch.autograd.grad(out, problem.trained, problem.gradient)


def seconds(work: Run, device: str) -> float:
    """How long the work takes on the GPU's own clock, or what processor time it costs."""
    if device == "cpu":
        start = time.process_time()
        work()
        return time.process_time() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    work()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000


def compare(call: Peer, problem: Problem, tolerance: float) -> None:
    """Raise SystemExit if a side's values or gradients are others than ours."""
    for found, wanted in zip(both_passes(call, problem), both_passes(ours, problem), strict=True):
        error = (found.float() - wanted.float()).norm() / wanted.float().norm()
        if not error < tolerance:
            raise SystemExit(f"{call.__name__} differs from masked_attention by {error:.1e}")


def measure(
    sides: dict[str, Peer], problems: Sequence[Problem], *, rounds: int, spend: float
) -> dict[str, list[float]]:
    """Seconds of every side in every round; more rounds than asked for until all took `spend` seconds."""
    device = problems[0].gradient.device.type
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in itertools.count(-2):
        if number >= rounds and sum(map(sum, times.values())) >= spend:
            break
        problem = problems[number % len(problems)]
        for name in list(sides)[:: 1 if number % 2 else -1]:
            spent = seconds(lambda call=sides[name], given=problem: both_passes(call, given), device)
            if number >= 0:
                times[name].append(spent)
    return times


def peak_mib(call: Peer, problem: Problem) -> float:
    """The allocator's peak above what the inputs take."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    both_passes(call, problem)
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def speeds() -> tuple[float, float]:
    """Bytes per second of a copy and operations per second of a bfloat16 product, measured here."""
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    left = torch.randn(8192, 8192, dtype=torch.bfloat16, device="cuda")
    copied, product = torch.empty_like(source), torch.empty_like(left)
    copies = [seconds(lambda: (copied.copy_(source),), "cuda") for _ in range(20)]
    products = [seconds(lambda: (torch.mm(left, left, out=product),), "cuda") for _ in range(20)]
    return 2 * 2**30 / median(copies), 2 * 8192**3 / median(products)


def run_shape(name: str, args: argparse.Namespace, limits: tuple[float, float] | None) -> dict[str, Any]:
    """One row of the table."""
    shape = SHAPES[name]
    if args.device == "cpu":
        shape = Shape(**{**vars(shape), "batch": max(4, shape.batch // args.shrink)})
    dtype = torch.float32 if args.device == "cpu" else torch.bfloat16
    problems = [make_problem(shape, device=args.device, dtype=dtype, seed=seed) for seed in range(3)]
    sides: dict[str, Peer] = {"ours": ours}
    for peer, call in peers_of(problems[0]).items():
        try:
            compare(call, problems[0], 1e-4 if args.device == "cpu" else 3e-2)
        except (RuntimeError, NotImplementedError) as error:
            print(f"{name}: {peer} doesn't take it: {str(error).splitlines()[0][:100]}", file=sys.stderr)
            continue
        sides[peer] = call
    times = measure(sides, problems, rounds=args.rounds, spend=args.spend)
    row: dict[str, Any] = {
        "shape": name,
        "batch": shape.batch,
        "rounds": len(times["ours"]),
        "ms": {},
        "ratio": {},
    }
    for side, spent in times.items():
        row["ms"][side] = 1000 * median(spent)
        pairs = [other / mine for other, mine in zip(spent, times["ours"], strict=True)]
        if side != "ours":
            row["ratio"][side] = {"median": median(pairs), "min": min(pairs), "max": max(pairs)}
    if limits is not None:
        row["floor_share"] = 1000 * floor(problems[0], *limits) / row["ms"]["ours"]
        row["peak_mib"] = {side: peak_mib(call, problems[0]) for side, call in sides.items()}
    return row


def device_name(args: argparse.Namespace) -> str:
    """What it was measured on."""
    if args.device == "cuda":
        return torch.cuda.get_device_name()
    found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return f"{found[1] if found else platform.machine()}, threads: {args.threads}"


def versions(device: str) -> str:
    """Of what the time depends on."""
    found = f"Python {platform.python_version()}, torch {torch.__version__}"
    if device == "cpu":
        return found
    return f"{found}, Triton {version('triton')}, CUDA {torch.version.cuda}, cuDNN {cudnn.version()}"


def table(rows: Sequence[dict[str, Any]], title: str) -> str:
    """Markdown."""
    lines = [
        title,
        "",
        "| shape | batch | rounds | ours, ms | ratio of other / ours (from - to) | floor / ours | peak MiB |",
    ]
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        ratios = "; ".join(
            f"{side} {ratio['median']:.2f} ({ratio['min']:.2f} - {ratio['max']:.2f})"
            for side, ratio in row["ratio"].items()
        )
        share = f"{row['floor_share']:.2f}" if "floor_share" in row else "-"
        peaks = "; ".join(f"{side} {peak:.0f}" for side, peak in row.get("peak_mib", {}).items()) or "-"
        cells = [row["shape"], row["batch"], row["rounds"], f"{row['ms']['ours']:.3f}", ratios, share, peaks]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    """Measure, print, and write a JSON and a Markdown file where a name is given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--rounds", type=int, default=9, help="at least")
    parser.add_argument("--spend", type=float, default=3.0, help="seconds at least that a shape is timed")
    parser.add_argument("--shrink", type=int, default=64, help="batches on a CPU are so many times smaller")
    parser.add_argument("--only", nargs="*", default=[""], help="beginnings of shapes' names")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="where to write; .json and .md are added")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    title = f"{device_name(args)}; {versions(args.device)}; at least {args.rounds} rounds"
    limits = speeds() if args.device == "cuda" else None
    rows = []
    for name in SHAPES:
        if name.startswith(tuple(args.only)):
            rows.append(run_shape(name, args, limits))
            print(table(rows[-1:], name).splitlines()[-1], flush=True)
    text = table(rows, title)
    print(text)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.with_suffix(".json").write_text(json.dumps({"title": title, "rows": rows}, indent=1) + "\n")
        args.out.with_suffix(".md").write_text(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
