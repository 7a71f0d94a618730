"""What the default demo runs learn, by probes and by fine-tuning, beside untrained encoders.

Usage: python scripts/demo_table.py [--systems mae colormae simmim] [--seeds 0 1 2] [--jobs 2] [--out DIR]

Every cell is a command of the package; its output is kept under --out, and what is there is not run again.
Systems of clips stand beside those of pictures in the same --out, which see every frame by itself.
Writes table.md (mean and spread over the seeds, in percent) and table.json (every measurement).
"""

import argparse
import csv
import hashlib
import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from hydra.utils import instantiate

from maskpre.checkpoints.sources import open_source
from maskpre.config import compose
from maskpre.data.workers import available_cores
from maskpre.evaluation.features import Features


@dataclass(frozen=True)
class Protocol:
    """How much of a kind of data the evaluations see."""

    data: tuple[str, ...]
    attentive: str
    # The run's own probe sees less of it, to be cheap.
    probed: tuple[str, ...]
    features: tuple[str, ...]
    # Few labels are what pretraining is for, and it takes minutes.
    tuned: tuple[str, ...]


PICTURES = Protocol(
    data=("data=demo",),
    attentive="probe=attentive",
    probed=("callbacks.probe.max_train=10000", "callbacks.probe.max_test=4000"),
    features=("max_train=6000", "max_val=2000"),
    tuned=("recipe=demo", "data.num_train=2000", "data.num_val=2000", "recipe.epochs=12"),
)
CLIPS = Protocol(
    data=("data=demo_video",),
    attentive="probe=attentive_clips",
    probed=("callbacks.probe.max_train=4000", "callbacks.probe.max_test=1000"),
    features=("max_train=4000", "max_val=1000"),
    tuned=("recipe=demo_video", "data.num_train=1000", "data.num_val=1000", "recipe.epochs=12"),
)
COLUMNS = ("linear", "linear, all maps", "attentive", "fine-tuned")
# Of the run's own probes, which go into which column; only convnets have the second.
PROBES = {"probe/linear": "linear", "probe/linear_maps": "linear, all maps"}


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


def protocol_of(system: str) -> Protocol:
    """That of the data a system learns from."""
    return CLIPS if "num_frames" in compose([f"experiment={system}"]).data else PICTURES


def top1(text: str) -> float:
    """The accuracy a probe or a fine-tuning printed, in percent."""
    found = re.search(r"^top-1 ([\d.]+)%", text, re.MULTILINE)
    if found is None:
        raise SystemExit(f"no accuracy in the output:\n{text}")
    return float(found.group(1))


def linear_probes(folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Accuracies of the linear probes before the first and after the last step, in percent, by column."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["probe/linear"]]
    before, after = (
        {column: 100 * float(row[probe]) for probe, column in PROBES.items() if probe in row}
        for row in (rows[0], rows[-1])
    )
    return before, after


@dataclass(frozen=True)
class Table:
    """Measures cells into `out`; several threads may ask at once.

    Untrained encoders of one architecture and seed are alike: they are measured once.
    """

    out: Path
    threads: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    untrained: dict[str, threading.Lock] = field(default_factory=dict)

    def protocol(self, system: str) -> Protocol:
        """See `protocol_of`; Hydra composes one configuration at a time."""
        with self.lock:
            return protocol_of(system)

    def pretrained(self, system: str, seed: int) -> tuple[dict[str, float], dict[str, float]]:
        """Cells of one system and seed: of the untrained and of the pretrained encoder."""
        folder = self.out / f"{system}-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        protocol = self.protocol(system)
        common = [f"seed={seed}", f"run_dir={folder / 'pretrain'}", "data.num_workers=0", *protocol.probed]
        run(["maskpre.train", f"experiment={system}", *common], folder / "pretrain.txt", self.threads)
        before, after = linear_probes(folder / "pretrain")
        checkpoint = folder / "pretrain/checkpoints/last.ckpt"
        architecture = hashlib.sha256(repr(open_source(str(checkpoint)).architecture()).encode())
        scratch = self.out / f"untrained-{architecture.hexdigest()[:8]}-{seed}"
        with self.lock:
            turn = self.untrained.setdefault(scratch.name, threading.Lock())
        with turn:
            untrained = self.cells(scratch, checkpoint, protocol, start="scratch", seed=seed)
        tuned = self.cells(folder, checkpoint, protocol, start="checkpoint", seed=seed)
        return {**before, **untrained}, {**after, **tuned}

    def cells(
        self, folder: Path, checkpoint: Path, protocol: Protocol, *, start: str, seed: int
    ) -> dict[str, float]:
        """Attentive probe and fine-tuning of a checkpoint, or of fresh weights for its architecture."""
        folder.mkdir(parents=True, exist_ok=True)
        source = [f"start={start}", f"checkpoint={checkpoint}", f"seed={seed}", "data.num_workers=0"]
        probe = ["maskpre.probe", protocol.attentive, *source, *protocol.data, *protocol.features]
        run_dir = f"run_dir={folder / f'finetune-{start}'}"
        tune = ["maskpre.finetune", *source, *protocol.data, *protocol.tuned, run_dir]
        return {
            "attentive": top1(run(probe, folder / f"attentive-{start}.txt", self.threads)),
            "fine-tuned": top1(run(tune, folder / f"finetune-{start}.txt", self.threads)),
        }

    def frame_wise(self, seed: int) -> dict[str, float]:
        """Attentive probes, on clips, of every pretrained encoder of pictures under `out`, by system."""
        found = {}
        for checkpoint in sorted(self.out.glob(f"*-{seed}/pretrain/checkpoints/last.ckpt")):
            folder = checkpoint.parents[2]
            system = folder.name.removesuffix(f"-{seed}")
            if self.protocol(system) is PICTURES:
                source = [f"checkpoint={checkpoint}", f"seed={seed}", "data.num_workers=0"]
                probe = ["maskpre.probe", CLIPS.attentive, *source, *CLIPS.data, *CLIPS.features]
                found[system] = top1(run(probe, folder / "attentive-frames.txt", self.threads))
        return found


def raw_pixels(output: Path) -> dict[str, float]:
    """Accuracies of the same probes on the pictures themselves, in percent; kept in `output`."""
    if output.exists():
        kept: dict[str, float] = json.loads(output.read_text())
        return kept
    cfg = compose(["experiment=mae"])
    data, inputs = instantiate(cfg.data), instantiate(cfg.inputs)
    data.prepare_data()
    splits = []
    for split, limit in (("train", 10000), ("val", 4000)):
        batches = list(data.eval_loader(split, batch_size=500, limit=limit))
        pixels = torch.cat([inputs.normalize(batch["image"]).flatten(1) for batch in batches])
        splits.append(Features(pixels, torch.cat([batch["label"] for batch in batches])))
    probes = instantiate(cfg.callbacks.probe.probes, _convert_="all")
    found = {str(name): 100 * probe(*splits).top1 for name, probe in probes.items()}
    output.write_text(json.dumps(found))
    return found


def spread(values: list[float]) -> str:
    """Mean and standard deviation over the seeds; nothing of nothing."""
    if not values:
        return ""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} ± {deviation:.1f}"


def markdown(results: dict[str, list[tuple[dict[str, float], dict[str, float]]]]) -> str:
    """The table: a line for each system and start."""
    lines = ["| system | encoder | " + " | ".join(COLUMNS) + " |", "|---|---|" + "---|" * len(COLUMNS)]
    for system, runs in results.items():
        for row, measured in zip(("untrained", "pretrained"), zip(*runs, strict=True), strict=True):
            cells = [spread([cell[column] for cell in measured if column in cell]) for column in COLUMNS]
            lines.append(f"| {system} | {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def in_words(values: dict[str, float] | dict[str, list[float]]) -> str:
    """Names and accuracies."""
    return ", ".join(
        f"{name} {spread(value) if isinstance(value, list) else f'{value:.1f}'}"
        for name, value in values.items()
    )


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--systems", nargs="+", default=["mae", "colormae", "simmim"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side; the cores are shared out")
    parser.add_argument("--out", type=Path, default=Path("runs/demo_table"))
    args = parser.parse_args()
    threads = max(1, available_cores() // args.jobs)
    pairs = [(system, seed) for seed in args.seeds for system in args.systems]
    with ThreadPoolExecutor(args.jobs) as pool:
        table = Table(out=args.out.absolute(), threads=threads)
        measured = dict(zip(pairs, pool.map(lambda pair: table.pretrained(*pair), pairs), strict=True))
        clips = any(protocol_of(system) is CLIPS for system in args.systems)
        frames = list(pool.map(table.frame_wise, args.seeds)) if clips else []
    pixels = raw_pixels(args.out / "raw_pixels.json")
    results = {system: [measured[system, seed] for seed in args.seeds] for system in args.systems}
    everything = {"raw pixels": pixels, "frame by frame": frames, **results}
    (args.out / "table.json").write_text(json.dumps(everything, indent=1))
    text = f"{markdown(results)}\nOn raw pixels: {in_words(pixels)}\n"
    if any(frames):
        by_system = {system: [of_seed[system] for of_seed in frames] for system in frames[0]}
        text += f"Clips frame by frame, attentive: {in_words(by_system)}\n"
    (args.out / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
