"""TensorBoard."""

from lightning.pytorch.loggers import TensorBoardLogger

from maskpre.errors import UserError
from maskpre.run_folder import RunFolder


def tensorboard_logger(*, folder: RunFolder) -> TensorBoardLogger:
    """Event files in the run's folder; UserError if the package is missing."""
    try:
        return TensorBoardLogger(save_dir=folder.path, name="", version="tensorboard")
    except ModuleNotFoundError as error:
        raise UserError("logger=tensorboard needs the package: pip install tensorboard") from error
