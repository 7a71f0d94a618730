"""Everything weights can come from: this package's checkpoints, exported folders, timm, official files."""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import timm
from omegaconf import OmegaConf
from torch import Tensor, nn

from maskpre.checkpoints.architecture import Architecture, from_config
from maskpre.checkpoints.fine_tuned import open_fine_tuned
from maskpre.checkpoints.layouts import LAYOUTS, Layout, recognise
from maskpre.checkpoints.read import read_checkpoint, read_safetensors
from maskpre.checkpoints.sharded import is_sharded
from maskpre.checkpoints.source import Source, State, TimmSource
from maskpre.errors import UserError

Found = TypeVar("Found")
FULL_CONFIG = "model.yaml"
WEIGHTS = "model.safetensors"
# Where HPM's files keep them.
OFFICIAL_AVERAGE = "ema_state_dict"
TEACHER = "checkpoint, its teacher's weights"
# Arguments of timm's models that whoever builds one decides anew.
POOLING = ("global_pool", "fc_norm", "use_fc_norm")


class PlannedWeights(ABC):
    """Weights that a run makes before they are needed."""

    @abstractmethod
    def open(self) -> Source:
        """The weights; until they are made their shapes only, as tensors on the meta device."""

    @abstractmethod
    def make(self) -> None:
        """Run until they are there, unless they are there already."""


class OwnSource(Source):
    """A pre-training checkpoint of this package: its averaged weights if it has any, else the raw ones."""

    def __init__(self, *, state: State, config: Mapping[str, Any], kind: str) -> None:
        self.state, self.config, self.kind = state, config, kind

    def encoder(self) -> State:
        """Without the prefix, and without the mask token, which only pre-training knows."""
        return {
            name.removeprefix("encoder."): value
            for name, value in self.state.items()
            if name.startswith("encoder.") and name != "encoder.mask_token"
        }

    def model(self) -> State:
        """As stored."""
        return self.state

    def architecture(self) -> Architecture:
        """From the configuration in the checkpoint."""
        return from_config(self.config["encoder"])


class OfficialSource(Source):
    """A file of the authors' code."""

    def __init__(self, *, state: State, layout: Layout, path: Path) -> None:
        self.state, self.layout, self.path, self.kind = state, layout, path, f"official, {layout.name}"

    def encoder(self) -> State:
        """Renamed."""
        return self._told(self.layout.encoder_keys)

    def model(self) -> State:
        """Renamed."""
        return self._told(self.layout.model_keys)

    def architecture(self) -> Architecture:
        """From the shapes."""
        return self._told(self.layout.architecture)

    def _told(self, read: Callable[[State], Found]) -> Found:
        """What `read` makes of the weights; UserError if they are not all that their layout promises."""
        try:
            return read(self.state)
        except UserError:
            raise
        except KeyError as error:
            raise UserError(
                f"{self.path} has names like a file of {self.layout.name}, but no {error}"
            ) from error
        except ValueError as error:
            raise UserError(
                f"{self.path} has names like a file of {self.layout.name}, but {error}"
            ) from error


def put_in(module: nn.Module, state: Mapping[str, Tensor], *, strict: bool = True) -> None:
    """Load weights, except on the meta device, where shapes are all there is to check.

    UserError if the weights are those of a run that has not been made yet.
    """
    if any(value.is_meta for value in module.state_dict().values()):
        return
    if any(value.is_meta for value in state.values()):
        raise UserError("weights of a run that has not been made yet: maskpre.train makes it")
    module.load_state_dict(dict(state), strict=strict)


def open_source(source: str | PlannedWeights) -> Source:
    """Weights by path or name, or those that a run makes.

    A checkpoint of pre-training or fine-tuning, or an official file; a folder made by `maskpre.export` or by
    timm (also as "local-dir:PATH"); "timm:NAME" for timm's published weights; "NAME" for a fresh timm model;
    "ema:FILE" for what averaging made of a file's weights: a system's teacher or a classifier's moving
    average. UserError if it is none of them.
    """
    if isinstance(source, PlannedWeights):
        return source.open()
    if source.startswith("timm:"):
        return _published(source.removeprefix("timm:"))
    if source.startswith("ema:"):
        return _file(Path(source.removeprefix("ema:")), teacher=True)
    path = Path(source.removeprefix("local-dir:"))
    if is_sharded(path):
        return _file(path)
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        return _file(path)
    if timm.is_model(source):
        return TimmSource(state={}, architecture=Architecture(source, {}), kind="timm, fresh weights")
    close = get_close_matches(source, timm.list_models(), n=3)
    hint = f"; timm has {', '.join(close)}" if close else ""
    raise UserError(f"{source} is no file, no folder, and no timm model{hint}")


def _published(name: str) -> Source:
    if not timm.is_model(name):
        raise UserError(f"timm has no model {name!r}")
    try:
        net = timm.create_model(name, pretrained=True)
    except (OSError, RuntimeError) as error:
        raise UserError(f"timm's weights of {name!r} can't be loaded: {error}") from error
    return TimmSource(
        state=net.state_dict(), architecture=Architecture(name, {}), kind="timm, published weights"
    )


def _folder(path: Path) -> Source:
    if (path / FULL_CONFIG).is_file():
        config = OmegaConf.to_container(OmegaConf.load(path / FULL_CONFIG))
        assert isinstance(config, dict)
        state = read_safetensors(path / WEIGHTS)
        return OwnSource(state=state, config={str(k): v for k, v in config.items()}, kind="exported model")
    if not (path / "config.json").is_file():
        raise UserError(f"folder {path} has neither config.json (an exported encoder) nor {FULL_CONFIG}")
    record = json.loads((path / "config.json").read_text())
    if "architecture" not in record:
        raise UserError(f"{path / 'config.json'} names no timm architecture")
    options = {k: v for k, v in record.get("model_args", {}).items() if k not in POOLING}
    architecture = Architecture(record["architecture"], options)
    return TimmSource(
        state=read_safetensors(path / WEIGHTS), architecture=architecture, kind="exported encoder"
    )


def _file(path: Path, *, teacher: bool = False) -> Source:
    content = read_safetensors(path) if path.suffix == ".safetensors" else read_checkpoint(path)
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__}, no weights")
    config = content.get("config")
    if isinstance(config, Mapping) and "encoder" in config and "state_dict" in content:
        student: Any = content["state_dict"]
        if teacher:
            return OwnSource(state=_own_average(student, path), config=config, kind=TEACHER)
        averaged = content.get("ema")
        kind = "checkpoint" if averaged is None else "checkpoint, averaged weights"
        return OwnSource(state=dict(averaged or student), config=config, kind=kind)
    fine_tuned = open_fine_tuned(content, path, average=teacher)
    if fine_tuned is not None:
        return fine_tuned
    state = _tensors(_official_average(content, path) if teacher else content, path)
    layout = recognise(state)
    if layout is None:
        known = ", ".join(layout.name for layout in LAYOUTS)
        raise UserError(
            f"{path} is of no known kind: neither a checkpoint of this package nor one of {known} "
            f"(its names start with {', '.join(list(state)[:3])})"
        )
    return OfficialSource(state=state, layout=layout, path=path)


def _own_average(state: State, path: Path) -> State:
    """A checkpoint's weights, with those that a teacher averages in place of the student's."""
    found = {match[1]: name for name in state if (match := re.match(r"(averages\.\w+\.)", name))}
    if len(found) != 1:
        raise UserError(f"{path} holds {len(found)} averaged teachers; ema: needs one")
    (prefix,) = found
    return {**state, **{n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}}


def _official_average(content: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    averaged = content.get(OFFICIAL_AVERAGE)
    if not isinstance(averaged, Mapping):
        raise UserError(f"{path} holds no averaged weights under {OFFICIAL_AVERAGE!r}")
    return averaged


def _tensors(content: Mapping[str, Any], path: Path) -> State:
    """The weights inside the wrappers that official code puts round them."""
    for key in ("model", "state_dict", "teacher", "module"):
        if isinstance(content.get(key), Mapping):
            content = content[key]
    state = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise UserError(f"{path} holds no tensors; its entries are {', '.join(map(str, list(content)[:5]))}")
    return state
