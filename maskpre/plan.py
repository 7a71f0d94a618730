"""What a run would need: `python -m maskpre.plan experiment=mae plan.gpu=h100-80`."""

from omegaconf import DictConfig
from rich.console import Console

from maskpre.config import command
from maskpre.planning.plan import make_plan
from maskpre.planning.report import plan_table


@command("plan")
def main(cfg: DictConfig) -> None:
    """Print parameters, work, memory and time of the run that a configuration describes."""
    Console(highlight=False, soft_wrap=True).print(plan_table(make_plan(cfg), name=cfg.plan.gpu))


if __name__ == "__main__":
    main()
