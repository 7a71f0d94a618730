"""The folder a run writes to: one run per folder, everything of the run inside."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from maskpre.checkpoints.exchange import recover
from maskpre.checkpoints.sharded import is_sharded
from maskpre.errors import UserError

_INHERITED = "MASKPRE_RUN_DIR"


def is_first_rank() -> bool:
    """Whether this process is, or will be, rank 0, as torchrun, srun and Lightning's launcher tell."""
    names = ("RANK", "SLURM_PROCID", "LOCAL_RANK")
    return int(next((os.environ[name] for name in names if name in os.environ), "0")) == 0


@dataclass(frozen=True)
class RunFolder:
    """Paths inside a run's folder."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def last(self) -> Path:
        """The checkpoint a resume starts from."""
        return self.checkpoints / "last.ckpt"

    @property
    def pictures(self) -> Path:
        """Folder of reconstruction pictures."""
        return self.path / "pictures"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for this run, and tell it to the ranks this process may start.

        UserError if another run holds it.
        """
        if not is_first_rank():
            yield
            return
        try:
            with FileLock(self.path / ".lock", timeout=0):
                os.environ[_INHERITED] = str(self.path)
                yield
        except Timeout as error:
            raise UserError(
                f"another run is writing to {self.path}; choose another run_dir or wait for it to end"
            ) from error
        finally:
            os.environ.pop(_INHERITED, None)

    def resume_from(self, resume: str | None) -> Path | None:
        """The checkpoint to continue from: this folder's own for "auto", else the file named."""
        recover(self.last)
        if resume is None:
            if self.last.exists():
                raise UserError(
                    f"{self.path} already holds a run and resume is null: choose another run_dir, or "
                    "resume=auto to continue it"
                )
            return None
        if resume == "auto":
            return self.last if self.last.exists() else None
        if not Path(resume).is_file() and not is_sharded(Path(resume)):
            raise UserError(f"resume: no checkpoint at {resume}; give a checkpoint, 'auto' or null")
        return Path(resume)


def _run_name(cfg: DictConfig) -> str:
    """The name given, else the experiment chosen on the command line."""
    chosen = HydraConfig.get().runtime.choices.get("experiment") if HydraConfig.initialized() else None
    return str(cfg.name or chosen or "run")


def _fresh_path(cfg: DictConfig) -> Path:
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    return Path(cfg.runs_dir) / _run_name(cfg) / f"{stamp}_seed{cfg.seed}_{uuid4().hex[:4]}"


def open_run_folder(cfg: DictConfig) -> RunFolder:
    """Make or reopen the run's folder and write the resolved configuration into it.

    A rank that the first one started takes its folder. UserError if the folder can't be written.
    """
    chosen = cfg.run_dir or os.environ.get(_INHERITED) or _fresh_path(cfg)
    folder = RunFolder(Path(chosen).absolute())
    try:
        folder.checkpoints.mkdir(parents=True, exist_ok=True)
        if is_first_rank():
            (folder.path / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
    except OSError as error:
        raise UserError(f"run folder {folder.path} can't be written: {error.strerror}") from error
    return folder
