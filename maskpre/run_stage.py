"""The process in which `maskpre.stages` trains a stage: `python -m maskpre.run_stage FOLDER`."""

import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from maskpre.data.files import only_one, write_json
from maskpre.errors import UserError
from maskpre.stages import CONFIG, MADE
from maskpre.subprocesses import stop_with_parent
from maskpre.train import run


def train_stage(folder: Path) -> int:
    """Train what the folder's configuration says, unless another process has.

    Returns the exit code of the process: 128 and its number if a signal stopped it.
    """
    with only_one(folder / "stage.lock", waiting=f"Another process trains {folder.name}; waiting for it"):
        if (folder / MADE).is_file():
            return 0
        cfg = OmegaConf.load(folder / CONFIG)
        assert isinstance(cfg, DictConfig)
        stopped_by = run(cfg)
        if stopped_by is not None:
            return 128 + stopped_by
        write_json(folder / MADE, {"epochs": cfg.epochs, "max_steps": cfg.max_steps})
        return 0


def main(argv: list[str] | None = None) -> int:
    """Train the stage of a folder."""
    stop_with_parent()
    (folder,) = sys.argv[1:] if argv is None else argv
    try:
        return train_stage(Path(folder))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
