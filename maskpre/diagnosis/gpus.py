"""The GPUs of this machine, and whether they are what the run asks for."""

import shutil
import subprocess
from collections.abc import Iterator

import torch
from omegaconf import DictConfig

from maskpre.config.conflicts import num_devices
from maskpre.diagnosis.base import Finding


def driver_version() -> str | None:
    """What nvidia-smi says; None without a driver."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else None


def check_gpus(cfg: DictConfig) -> Iterator[Finding]:
    """Driver, NCCL, every GPU with its free memory, and their number against `trainer.devices`."""
    driver, wanted = driver_version(), num_devices(cfg.trainer.devices)
    yield Finding("driver", driver or "none")
    if not torch.cuda.is_available():
        yield _without_gpu(cfg, driver)
        return
    yield Finding("CUDA of torch", str(torch.version.cuda))
    if torch.distributed.is_nccl_available():
        yield Finding("NCCL", ".".join(map(str, torch.cuda.nccl.version())))
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        busy = free < 0.9 * total
        text = f"{about.name}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free"
        yield Finding(f"GPU {number}", text, "note" if busy else "ok")
    yield _number(wanted, torch.cuda.device_count())
    if "bf16" in str(cfg.trainer.precision) and not torch.cuda.is_bf16_supported(including_emulation=False):
        yield Finding(
            "precision", "the GPU computes no bfloat16; use trainer.precision=16-mixed or 32-true", "error"
        )


def _without_gpu(cfg: DictConfig, driver: str | None) -> Finding:
    if driver is not None:
        text = f"torch {torch.__version__} (CUDA {torch.version.cuda}) can't use the driver {driver}"
        return Finding("GPUs", text, "error")
    asked = cfg.trainer.accelerator in ("gpu", "cuda")
    text = f"none, but trainer.accelerator is {cfg.trainer.accelerator}" if asked else "none: the CPU trains"
    return Finding("GPUs", text, "error" if asked else "note")


def _number(wanted: int, found: int) -> Finding:
    if wanted > found:
        return Finding("GPUs", f"trainer.devices is {wanted}, this machine has {found}", "error")
    spare = found - wanted
    return Finding("GPUs", f"{wanted} used" + (f", {spare} idle" if spare else ""), "note" if spare else "ok")
