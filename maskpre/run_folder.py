"""The folder a run writes to: one run per folder, everything of the run inside."""

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from maskpre.errors import UserError


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

    def lock(self) -> FileLock:
        """Hold the folder for this process; UserError if another run holds it."""
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise UserError(
                f"another run is writing to {self.path}; choose another run_dir or wait for it to end"
            ) from error
        return lock

    def resume_from(self, resume: str | None) -> Path | None:
        """The checkpoint to continue from: this folder's own for "auto", else the file named."""
        if resume is None:
            if self.last.exists():
                raise UserError(
                    f"{self.path} already holds a run and resume is null: choose another run_dir, or "
                    "resume=auto to continue it"
                )
            return None
        if resume == "auto":
            return self.last if self.last.exists() else None
        if not Path(resume).is_file():
            raise UserError(f"resume: no checkpoint at {resume}; give a .ckpt file, 'auto' or null")
        return Path(resume)


def _fresh_path(cfg: DictConfig) -> Path:
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    return Path(cfg.runs_dir) / (cfg.name or "run") / f"{stamp}_seed{cfg.seed}_{uuid4().hex[:4]}"


def open_run_folder(cfg: DictConfig) -> RunFolder:
    """Make or reopen the run's folder and write the resolved configuration into it.

    Ranks of one run share the folder through the environment: the first process chooses, those it starts
    inherit the choice. UserError if the folder can't be written.
    """
    chosen = cfg.run_dir or os.environ.get("MASKPRE_RUN_DIR") or _fresh_path(cfg)
    folder = RunFolder(Path(chosen).absolute())
    try:
        folder.checkpoints.mkdir(parents=True, exist_ok=True)
        (folder.path / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
    except OSError as error:
        raise UserError(f"run folder {folder.path} can't be written: {error.strerror}") from error
    return folder
