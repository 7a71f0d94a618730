"""The folder a run writes to: one run per folder, everything of the run inside."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from filelock import Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from maskpre.checkpoints.exchange import recover
from maskpre.checkpoints.sharded import is_sharded
from maskpre.data.files import locked
from maskpre.errors import UserError
from maskpre.parallel.agree import agreed
from maskpre.run_status import RunStatus, State, read_status, write_status
from maskpre.slurm import current_job
from maskpre.torchrun import said_by_first_rank

_INHERITED = "MASKPRE_RUN_DIR"

# A requeued job may start before a file server has noticed that the node of its predecessor is gone.
_LOCK_SECONDS, _LOCK_SECONDS_REQUEUED = 1.0, 180.0


def is_first_rank() -> bool:
    """Whether this process is, or will be, rank 0, as torchrun, srun and Lightning's launcher tell."""
    # Inside torchrun SLURM counts the nodes' torchruns, of which any may hold rank 0.
    names = ("RANK",) if "RANK" in os.environ else ("SLURM_PROCID", "NODE_RANK", "LOCAL_RANK")
    return all(int(os.environ.get(name, "0")) == 0 for name in names)


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

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def overrides(self) -> Path:
        """What the command line chose and set, one line each."""
        return self.path / "overrides.txt"

    @property
    def lock(self) -> Path:
        """Locked while a process runs in the folder."""
        return self.path / ".lock"

    @property
    def status(self) -> RunStatus | None:
        """What the run in the folder has said about itself."""
        return read_status(self.path / "status.json")

    def write_status(self, state: State, *, message: str = "", total_steps: int | None = None) -> None:
        """Say what the run is doing; the first rank does."""
        if is_first_rank():
            write_status(self.path / "status.json", state, message=message, total_steps=total_steps)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for this run, tell it to the ranks this process may start, and how it ends.

        UserError if another run holds it.
        """
        if not is_first_rank():
            yield
            return
        os.environ[_INHERITED] = str(self.path)
        try:
            with self._locked(), self._telling():
                yield
        finally:
            os.environ.pop(_INHERITED, None)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        job = current_job()
        requeued = job is not None and job.restarts > 0
        with ExitStack() as stack:
            try:
                patience = _LOCK_SECONDS_REQUEUED if requeued else _LOCK_SECONDS
                stack.enter_context(locked(self.lock, timeout=patience))
            except Timeout as error:
                holder = "" if self.status is None else f" ({self.status.process()})"
                raise UserError(
                    f"another run is writing to {self.path}{holder}; choose another run_dir or wait for it "
                    "to end"
                ) from error
            yield

    def describe(self, cfg: DictConfig) -> None:
        """Write down the resolved configuration, and what the command line chose and set.

        UserError if another run holds the folder.
        """
        with self._locked():
            self.config.write_text(OmegaConf.to_yaml(cfg, resolve=True))
            if HydraConfig.initialized():
                self.overrides.write_text("".join(f"{line}\n" for line in HydraConfig.get().overrides.task))

    @contextmanager
    def _telling(self) -> Iterator[None]:
        self.write_status("running")
        try:
            yield
        except UserError as error:
            self._fail(str(error))
            raise
        except Exception as error:
            self._fail(f"{type(error).__name__}: {error}")
            raise
        except BaseException:
            self.write_status("stopped")
            raise
        if self.status is not None and self.status.state == "running":
            self.write_status("finished")

    def _fail(self, message: str) -> None:
        try:
            self.write_status("failed", message=message)
        except OSError:
            # What made the run fail, a full disk perhaps, must be told; not that this could not be noted.
            return

    def resume_from(self, resume: str | None) -> Path | None:
        """The checkpoint to continue from: this folder's own for "auto", else the file named.

        A requeued SLURM job always continues what it has begun.
        """
        recover(self.last)
        job = current_job()
        if job is not None and job.restarts > 0 and self.last.exists():
            return self.last
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
    """A new folder's path: the same one on every rank, and in a SLURM job that has been requeued."""
    job, digest = current_job(), hashlib.sha256(OmegaConf.to_yaml(cfg, resolve=True).encode()).hexdigest()
    if job is not None:
        # A job's script may train more than once: each configuration has a folder.
        own = f"job{job.id}_seed{cfg.seed}_{digest[:4]}"
    else:
        stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        own = said_by_first_rank(digest, f"{stamp}_seed{cfg.seed}_{uuid4().hex[:4]}")
    return Path(cfg.runs_dir) / _run_name(cfg) / own


def _shared_path(cfg: DictConfig) -> str:
    """A fresh path, the same on all ranks."""
    return agreed(OmegaConf.to_yaml(cfg, resolve=True), lambda: str(_fresh_path(cfg)))


def open_run_folder(cfg: DictConfig) -> RunFolder:
    """Make or reopen the run's folder and write the resolved configuration into it.

    A rank that the first one started takes its folder. UserError if the folder can't be written or another
    run holds it.
    """
    chosen = cfg.run_dir or os.environ.get(_INHERITED) or _shared_path(cfg)
    folder = RunFolder(Path(chosen).absolute())
    try:
        folder.checkpoints.mkdir(parents=True, exist_ok=True)
        if is_first_rank():
            folder.describe(cfg)
    except OSError as error:
        raise UserError(f"run folder {folder.path} can't be written: {error.strerror}") from error
    return folder
