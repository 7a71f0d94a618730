"""Training steps per second and peak memory of an experiment, beside a plain step on timm's blocks.

With --against, it stands beside itself under other overrides instead, from the same weights, or beside
another experiment.

python scripts/benchmark_step.py experiment=mae --size vit_small_patch16_224 --batch 32
python scripts/benchmark_step.py experiment=mae attention=triton --device cuda --against attention=sdpa
python scripts/benchmark_step.py experiment=spark --size resnet50 --batch 8
python scripts/benchmark_step.py experiment=spark --size resnet50 --batch 8 --against encoder.execution=mask
python scripts/benchmark_step.py experiment=videomae_v2 --against masking.decoder_ratio=0 --other-work
python scripts/benchmark_step.py experiment=hpm --size vit_small_patch16_224 --against experiment=mae
python scripts/benchmark_step.py experiment=mae data.num_train=256 data.num_val=64 --data

The reference does what is published, as one would write it down. MAE (He et al. 2022; `textbook_mae.py`):
embed all patches, gather the visible ones, unshuffle, decode and predict all patches, compare all, count the
hidden ones; AdamW as torch makes it. SparK on a ResNet (Tian et al. 2023; `textbook_spark.py`): convolve
everything, multiply by the mask, normalise what is visible, fill the maps, decode, compare all patches, count
the hidden ones; LAMB as timm makes it. Other systems stand beside MAE. Both sides run in one process, in
turns, on the same batch, with parts of the same sizes; where they are the same system they also start from
the same weights and must find the same loss. With compile=true both are compiled. Both reuse freed memory as
the package's commands do. The ratio is the median over rounds of reference time / step time. Peak memory is
that of a process of its own for each side: the largest resident set on a CPU, the allocator's peak on a GPU.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import torch
from omegaconf import DictConfig
from textbook import Textbook
from textbook_mae import TextbookMAE
from training_steps import (
    Batch,
    OurStep,
    Step,
    TextbookStep,
    batches,
    chooses_experiment,
    configure,
    one_step,
    textbook_for,
)

from maskpre.build import build_model
from maskpre.encoders.attend import set_attention
from maskpre.model import MaskedModel
from maskpre.ops.heap import keep_freed_memory

SIDES = ("maskpre", "textbook")
# Until then memory that is used again and again is touched for the first time.
WARM_UP = 4


def build(args: argparse.Namespace, names: Sequence[str]) -> tuple[DictConfig, dict[str, Step], bool]:
    """The configuration, the sides by name, and whether they are the same system."""
    cfg = configure(args)
    torch.manual_seed(cfg.seed)
    model = build_model(cfg)
    set_attention(model, cfg.attention)
    book = textbook_for(model)
    makers: dict[str, Callable[[], Step]] = {
        "maskpre": lambda: OurStep(cfg, model.to(args.device), args.batch),
        "textbook": lambda: TextbookStep(
            cfg, (book or TextbookMAE).beside(model, cfg, args.size).to(args.device), args.batch
        ),
        "against": lambda: other_step(args, model),
    }
    comparable = book is not None if args.against is None else not chooses_experiment(args.against)
    return cfg, {name: makers[name]() for name in names}, comparable


def other_step(args: argparse.Namespace, model: MaskedModel) -> OurStep:
    """The step under the overrides of --against, from the weights of `model`."""
    cfg = configure(args, args.against)
    other = build_model(cfg)
    set_attention(other, cfg.attention)
    if not chooses_experiment(args.against):
        other.load_state_dict(model.state_dict())
    return OurStep(cfg, other.to(args.device), args.batch)


def losses(sides: dict[str, Step], batch: Batch) -> list[float]:
    """The loss of every side under the same mask."""
    uniform = None
    if "textbook" in sides:
        book = sides["textbook"].model
        assert isinstance(book, Textbook)
        uniform = torch.rand(len(batch["image"]), book.num_cells).to(batch["image"].device)
    with torch.no_grad():
        return [side.loss(batch, uniform).item() for side in sides.values()]


def seconds(work: Callable[[], object], device: str) -> float:
    """How long the work takes, on the device's own clock where it has one."""
    if device == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000
    start_time = time.perf_counter()
    work()
    return time.perf_counter() - start_time


def measure(sides: dict[str, Step], cfg: DictConfig, args: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds per step of every side in every round, after some steps that don't count."""
    streams = {name: batches(cfg, args) for name in sides}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(-WARM_UP, args.rounds):
        # Whoever comes first finds the other's data in the caches: take turns at that, too.
        for name in list(sides)[:: 1 if number % 2 else -1]:
            work = partial(one_step, sides[name], streams[name], args.precision)
            spent = seconds(work, args.device)
            if number >= 0:
                times[name].append(spent)
    return times


def peak_here(args: argparse.Namespace) -> float:
    """Peak memory in MiB of three steps of the side `args.side`, in this process."""
    cfg, sides, _ = build(args, [args.side])
    stream = batches(cfg, args)
    for _ in range(3):
        one_step(sides[args.side], stream, args.precision)
    if args.device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    # Not getrusage: its peak is inherited from the process that started this one.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**10


def peak_of(name: str, argv: Sequence[str]) -> float:
    """Peak memory of a side in a process of its own."""
    command = [sys.executable, __file__, *argv, "--side", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the process that measures {name}'s memory failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])["peak"]


def check_equal_work(sides: dict[str, Step], batch: Batch, *, other_work: bool = False) -> str:
    """A line on how the sides' losses compare; SystemExit if the same work yields different ones."""
    ours, theirs = losses(sides, batch)
    if other_work:
        return f"same weights, other work: loss {ours:.6f}, reference {theirs:.6f}"
    if abs(ours - theirs) > 1e-4 * abs(theirs):
        raise SystemExit(f"the sides don't do the same work: loss {ours:.6f}, reference {theirs:.6f}")
    return f"same weights, same mask: loss {ours:.6f}, reference {theirs:.6f}"


def report(times: dict[str, list[float]], peaks: dict[str, float], args: argparse.Namespace) -> str:
    """The table."""
    lines = [f"{'':10}{'images/s':>12}{'ms/step':>12}{'peak MiB':>12}"]
    for name, spent in times.items():
        rate, peak = args.batch / median(spent), f"{peaks[name]:.0f}" if peaks else "-"
        lines.append(f"{name:10}{rate:12.2f}{1000 * median(spent):12.1f}{peak:>12}")
    ratios = [theirs / ours for ours, theirs in zip(*times.values(), strict=True)]
    lines.append(
        f"images/s ratio, median of {len(ratios)} pairs: {median(ratios):.3f} "
        f"(from {min(ratios):.3f} to {max(ratios):.3f})"
    )
    if peaks:
        ours, theirs = peaks.values()
        lines.append(f"memory ratio: {ours / theirs:.3f}")
    return "\n".join(lines)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Options, and the overrides of the configuration among them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("overrides", nargs="*", help="as for maskpre.train: experiment=mae optim.base_lr=...")
    parser.add_argument("--size", help="timm's name of the encoder, with the published decoder")
    parser.add_argument("--against", nargs="+", metavar="OVERRIDE", help="overrides of the other side")
    parser.add_argument("--other-work", action="store_true", help="of --against: losses may differ")
    parser.add_argument("--image", type=int, default=224, help="side of the pictures if --size is given")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=8, help="timed steps per side")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--data", action="store_true", help="include the loader, in the same process")
    parser.add_argument("--no-memory", action="store_true", help="leave out the two runs for peak memory")
    parser.add_argument("--side", choices=[*SIDES, "against"], help=argparse.SUPPRESS)
    return parser.parse_intermixed_args(argv)


def main(argv: Sequence[str]) -> None:
    """Measure and print."""
    args = parse(argv)
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    if args.side is not None:
        print(json.dumps({"peak": peak_here(args)}))
        return
    names = ("maskpre", "against") if args.against else SIDES
    cfg, sides, comparable = build(args, names)
    device = torch.cuda.get_device_name() if args.device == "cuda" else f"CPU, {args.threads} threads"
    print(f"{device}, {args.precision}, batch {args.batch}, torch {torch.__version__}")
    if args.against:
        print(f"against: {' '.join(args.against)}")
    if comparable:
        print(check_equal_work(sides, next(batches(cfg, args)), other_work=args.other_work))
    else:
        print("another system than the reference: the ratio compares systems, not implementations")
    times = measure(sides, cfg, args)
    del sides
    peaks = {} if args.no_memory else {name: peak_of(name, argv) for name in names}
    print(report(times, peaks, args))


if __name__ == "__main__":
    main(sys.argv[1:])
