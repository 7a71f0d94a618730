"""Run a dumped step again, `python -m maskpre.replay DUMP`."""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from maskpre.build import build_model
from maskpre.checkpoints.read import read_torch
from maskpre.encoders.attend import set_attention
from maskpre.errors import UserError
from maskpre.ops.attention_choice import Backend, runs_triton
from maskpre.ops.noise import KeyedNoise
from maskpre.types import Step


def _is_finite(output: Any) -> bool:
    tensor = getattr(output, "tokens", output)
    return not isinstance(tensor, Tensor) or bool(tensor.isfinite().all())


class FirstNonFinite:
    """Notes the first part whose weights, or else whose output, are not finite, in order of execution."""

    def __init__(self, model: nn.Module) -> None:
        bad = [name for name, tensor in model.state_dict().items() if not _is_finite(tensor)]
        self.found: str | None = f"the weights {bad[0]}" if bad else None
        for name, module in model.named_modules():
            # A block with a hook of its own runs whole, without the attention that the run chose; what it
            # yields is seen in the layers of it and behind it.
            if name and (name.count(".") < 2 or not any(module.children())):
                module.register_forward_hook(self._hook(name))

    def _hook(self, name: str) -> Any:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            if self.found is None and not _is_finite(output):
                self.found = f"the output of {name}"

        return look


def _attention(chosen: Backend) -> Backend:
    """What the run computed attention with; kernels that need the run's GPU give way to torch's."""
    return chosen if chosen != "triton" or runs_triton(torch.device("cpu")) else "auto"


def replay(path: Path) -> tuple[Step, str | None]:
    """The step of a dump, computed again in full precision, and the first module that went wrong.

    Raises UserError if the file is no dump.
    """
    dump = read_torch(path)
    missing = {"batch", "keys", "state_dict", "config", "seed", "progress"} - set(dump)
    if missing:
        raise UserError(f"{path} is no dump of a training step: it lacks {sorted(missing)}")
    config = OmegaConf.create(dump["config"])
    model = build_model(config)
    set_attention(model, _attention(config.attention))
    model.load_state_dict(dump["state_dict"])
    watcher = FirstNonFinite(model)
    batch = dump["batch"]
    noise = KeyedNoise(dump["seed"], batch["epoch"], batch["index"])
    with torch.enable_grad():
        step = model(batch, noise=noise, progress=dump["progress"])
        step.total.backward()
    return step, watcher.found or _first_bad_gradient(model)


def _first_bad_gradient(model: nn.Module) -> str | None:
    # The parameters next to the loss come last, and their gradients are computed first.
    for name, parameter in reversed(list(model.named_parameters())):
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all()):
            return f"the gradient of {name}"
    return None


def main(argv: list[str] | None = None) -> int:
    """Print what the step computes: exit code 0 if all is finite now, 1 if not."""
    parser = ArgumentParser(prog="python -m maskpre.replay", description="Run a dumped training step again.")
    parser.add_argument("dump", type=Path)
    path = parser.parse_args(argv).dump
    try:
        step, culprit = replay(path)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    for name, loss in step.losses.items():
        print(f"loss {name}: {loss.item()}")
    print("samples:", ", ".join(read_torch(path)["keys"]))
    print("first thing not finite:", culprit or "none, in full precision on this machine")
    return 1 if culprit else 0


if __name__ == "__main__":
    sys.exit(main())
