"""What the default demo runs learn, by probes and by fine-tuning, beside untrained encoders.

Usage: python scripts/demo_table.py [--systems mae colormae simmim] [--seeds 0 1 2] [--jobs 2] [--out DIR]

Every cell is a command of the package; its output is kept under --out, and what is there is not run again.
Writes table.md (mean and spread over the seeds, in percent) and table.json (every measurement).
"""

import argparse
import csv
import json
import os
import re
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from hydra.utils import instantiate

from maskpre.config import compose
from maskpre.evaluation.features import Features

# Fine-tuning uses a tenth of the labels: few labels are what pretraining is for, and it takes minutes.
FEW_LABELS = ("data.num_train=2000", "data.num_val=2000", "recipe.epochs=12")
FEW_FEATURES = ("max_train=6000", "max_val=2000")
# The run's own probe sees less of the data, to be cheap.
MORE_PROBED = ("callbacks.probe.max_train=10000", "callbacks.probe.max_test=4000")
COLUMNS = ("linear", "attentive", "fine-tuned")


def run(command: list[str], output: Path, threads: int) -> str:
    """The command's output, from an earlier run if there is one."""
    if not output.exists():
        env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        start = time.monotonic()
        done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, env=env)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
        seconds = time.monotonic() - start
        output.with_suffix(".partial").write_text(f"{done.stdout}\nseconds {seconds:.0f}\n")
        output.with_suffix(".partial").rename(output)
    return output.read_text()


def top1(text: str) -> float:
    """The accuracy a probe or a fine-tuning printed, in percent."""
    found = re.search(r"^top-1 ([\d.]+)%", text, re.MULTILINE)
    if found is None:
        raise SystemExit(f"no accuracy in the output:\n{text}")
    return float(found.group(1))


def linear_probes(folder: Path) -> tuple[float, float]:
    """Accuracies of the linear probe before the first and after the last step, in percent."""
    with (folder / "metrics.csv").open(newline="") as file:
        values = [100 * float(row["probe/linear"]) for row in csv.DictReader(file) if row["probe/linear"]]
    return values[0], values[-1]


def measure(system: str, seed: int, out: Path, threads: int) -> dict[str, dict[str, float]]:
    """All cells of one system and seed."""
    folder = out / f"{system}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    workers = "data.num_workers=0"
    common = [f"seed={seed}", f"run_dir={folder / 'pretrain'}", workers, *MORE_PROBED]
    run(["maskpre.train", f"experiment={system}", *common], folder / "pretrain.txt", threads)
    untrained, pretrained = linear_probes(folder / "pretrain")
    cells = {"untrained": {"linear": untrained}, "pretrained": {"linear": pretrained}}
    source = [f"checkpoint={folder / 'pretrain/checkpoints/last.ckpt'}", f"seed={seed}", workers]
    for row, start in (("untrained", "scratch"), ("pretrained", "checkpoint")):
        probe = ["maskpre.probe", "probe=attentive", f"start={start}", *source, *FEW_FEATURES]
        cells[row]["attentive"] = top1(run(probe, folder / f"attentive-{start}.txt", threads))
        tune = ["maskpre.finetune", f"start={start}", *source, *FEW_LABELS]
        tune.append(f"run_dir={folder / f'finetune-{start}'}")
        cells[row]["fine-tuned"] = top1(run(tune, folder / f"finetune-{start}.txt", threads))
    return cells


def raw_pixels() -> dict[str, float]:
    """Accuracies of the same probes on the pictures themselves, in percent."""
    cfg = compose(["experiment=mae"])
    data, inputs = instantiate(cfg.data), instantiate(cfg.inputs)
    data.prepare_data()
    splits = []
    for split, limit in (("train", 10000), ("val", 4000)):
        batches = list(data.eval_loader(split, batch_size=500, limit=limit))
        pixels = torch.cat([inputs.normalize(batch["image"]).flatten(1) for batch in batches])
        splits.append(Features(pixels, torch.cat([batch["label"] for batch in batches])))
    probes = instantiate(cfg.callbacks.probe.probes)
    return {str(name): 100 * probe(*splits).top1 for name, probe in probes.items()}


def spread(values: list[float]) -> str:
    """Mean and standard deviation over the seeds."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} ± {deviation:.1f}"


def markdown(results: dict[str, list[dict[str, dict[str, float]]]]) -> str:
    """The table: a line for each system and start."""
    lines = ["| system | encoder | " + " | ".join(COLUMNS) + " |", "|---|---|" + "---|" * len(COLUMNS)]
    for system, runs in results.items():
        for row in ("untrained", "pretrained"):
            cells = [spread([cell[row][column] for cell in runs]) for column in COLUMNS]
            lines.append(f"| {system} | {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--systems", nargs="+", default=["mae", "colormae", "simmim"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side; the cores are shared out")
    parser.add_argument("--out", type=Path, default=Path("runs/demo_table"))
    args = parser.parse_args()
    threads = max(1, (os.cpu_count() or 1) // args.jobs)
    pairs = [(system, seed) for seed in args.seeds for system in args.systems]
    with ThreadPoolExecutor(args.jobs) as pool:
        cells = pool.map(lambda pair: measure(*pair, args.out.absolute(), threads), pairs)
        measured = dict(zip(pairs, cells, strict=True))
    pixels = raw_pixels()
    results = {system: [measured[system, seed] for seed in args.seeds] for system in args.systems}
    (args.out / "table.json").write_text(json.dumps({"raw pixels": pixels, **results}, indent=1))
    table = (
        markdown(results) + "\nOn raw pixels: " + ", ".join(f"{k} {v:.1f}" for k, v in pixels.items()) + "\n"
    )
    (args.out / "table.md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
