"""Models for other programs: `python -m maskpre.export checkpoint=PATH out=FOLDER`."""

from omegaconf import DictConfig

from maskpre.checkpoints.export import export
from maskpre.config import command


@command("export")
def main(cfg: DictConfig) -> None:
    """Write a checkpoint's model in another format, after reading it back and comparing."""
    difference = export(cfg.checkpoint, cfg.out, cfg.format)
    print(f"largest difference of features after reading it back: {difference:.2g}")
    print(f"exported to {cfg.out} (format={cfg.format})")
    if cfg.format == "timm":
        print(f'  timm.create_model("local-dir:{cfg.out}", pretrained=True, num_classes=...)')


if __name__ == "__main__":
    main()
