"""Runs that come first: another experiment whose weights this one starts from or learns from."""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict

from maskpre.build import build_model
from maskpre.checkpoints.source import Source
from maskpre.checkpoints.sources import OwnSource, PlannedWeights, open_source
from maskpre.config.compose import compose
from maskpre.config.planned import planned_weights
from maskpre.config.validate import validate
from maskpre.data.files import atomic_path
from maskpre.data.rendered import default_cache_dir
from maskpre.errors import UserError
from maskpre.run_folder import RunFolder, is_first_rank
from maskpre.subprocesses import run_forwarding_signals

FORMAT = 1
"""Raised when the same configuration gives other weights than before."""

CONFIG, MADE = "stage.yaml", "made.json"

# Where a run is written to, what it is called and who loads its data change nothing of what it learns.
_BESIDE_THE_POINT = ("name", "runs_dir", "run_dir", "resume", "data.num_workers")

_composing: ContextVar[tuple[str, ...]] = ContextVar("composing", default=())


class Stage(PlannedWeights):
    """The last checkpoint of `experiment` with `overrides`, trained when it is needed for the first time.

    `settings` are whole top-level entries that replace the experiment's, before the overrides: with
    `data: ${data}` it learns from the same pictures as the run it is named in. `values` are entries at any
    depth, as they lie in the configuration; they come last and may be null. It is kept in `cache_dir` (null:
    `default_cache_dir`) under a name that depends on everything in its configuration, so that the next run
    finds it. In YAML: `_recursive_: false`.

    Raises ConfigError with all that is wrong with its configuration.
    """

    def __init__(
        self,
        *,
        experiment: str,
        overrides: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
        values: Mapping[str, Any] | None = None,
        cache_dir: str | None = None,
    ) -> None:
        self.experiment = experiment
        taken, set_last = (OmegaConf.to_yaml(entries or {}, resolve=True) for entries in (settings, values))
        self.config = _compose(experiment, tuple(overrides), taken, set_last)
        self.cache_dir = default_cache_dir() if cache_dir is None else Path(cache_dir).expanduser()

    def __str__(self) -> str:
        return f"the stage {self.folder.path.name}"

    @cached_property
    def folder(self) -> RunFolder:
        """Where it is, or will be."""
        config = self.config.copy()
        for key in _BESIDE_THE_POINT:
            OmegaConf.update(config, key, None, force_add=True)
        content = OmegaConf.to_container(config, resolve=True)
        text = json.dumps({"format": FORMAT, "config": content}, sort_keys=True)
        name = f"{self.experiment.replace('/', '_')}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        return RunFolder((self.cache_dir / "stages" / name).absolute())

    @property
    def is_made(self) -> bool:
        """Whether it has been trained to the end."""
        return (self.folder.path / MADE).is_file() and self.folder.last.is_file()

    def open(self) -> Source:
        """Its weights; before it is made their shapes only, as tensors on the meta device."""
        if self.is_made:
            return open_source(str(self.folder.last))
        with torch.device("meta"):
            state = build_model(self.config).state_dict()
        config: Any = OmegaConf.to_container(self.config, resolve=True)
        return OwnSource(state=state, config=config, kind="not trained yet")

    def make(self) -> None:
        """Train it if that has not been done; the first rank does, the others wait.

        An interrupted stage goes on where it stopped. Raises SystemExit if a signal stops it, UserError if
        it fails.
        """
        if self.is_made:
            print(f"{self}: found in {self.folder.path}")
        elif is_first_rank():
            self._train()
        else:
            while not self.is_made:
                time.sleep(1.0)

    def write_config(self) -> None:
        """Tell the process that trains it what to do."""
        self.folder.path.mkdir(parents=True, exist_ok=True)
        content: Any = OmegaConf.to_container(self.config, resolve=True)
        content |= {"run_dir": str(self.folder.path), "resume": "auto"}
        with atomic_path(self.folder.path / CONFIG) as temporary:
            temporary.write_text(OmegaConf.to_yaml(OmegaConf.create(content)))

    def _train(self) -> None:
        print(f"{self} comes first; it is kept in {self.folder.path}", flush=True)
        self.write_config()
        code = run_forwarding_signals("maskpre.run_stage", str(self.folder.path))
        if code > 128:
            print(f"stopped in {self}; the same command goes on from there")
            raise SystemExit(code)
        if code or not self.is_made:
            raise UserError(f"{self} failed (exit code {code}); what it wrote is in {self.folder.path}")


@lru_cache(maxsize=16)
def _compose(experiment: str, overrides: tuple[str, ...], settings: str, values: str) -> DictConfig:
    """A stage's configuration, not to be written to."""
    with _once(" ".join([experiment, *overrides])):
        cfg = compose([f"experiment={experiment}", *overrides])
        taken = OmegaConf.create(settings)
        with open_dict(cfg):
            cfg.update(taken)
        for override in OverridesParser.create().parse_overrides(list(overrides)):
            if override.key_or_group.partition(".")[0] in taken:
                OmegaConf.update(cfg, override.key_or_group, override.value())
        with open_dict(cfg):
            cfg.merge_with(OmegaConf.create(values))
        validate(cfg)
    return cfg


@contextmanager
def _once(name: str) -> Iterator[None]:
    """Refuse a stage that needs itself."""
    chain = _composing.get()
    if name in chain:
        raise UserError(f"stages need each other in a circle: {' -> '.join([*chain, name])}")
    token = _composing.set((*chain, name))
    try:
        yield
    finally:
        _composing.reset(token)


def make_stages(cfg: DictConfig) -> None:
    """Train what a configuration names as stages and is not there yet."""
    for node in planned_weights(cfg):
        stage: PlannedWeights = instantiate(node)
        stage.make()
