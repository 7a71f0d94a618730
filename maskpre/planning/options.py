"""What a plan has to be told."""

from dataclasses import dataclass

from maskpre.planning.gpus import GpuName


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """What a plan can't know: the GPU's name, the size of the data, and how fast a GPU was measured to be.

    `images_per_second` counts one GPU's samples; `run` names the folder of a run on such GPUs, whose log is
    read instead. `num_samples` None asks the data.
    """

    gpu: GpuName = "a100-80"
    images_per_second: float | None = None
    run: str | None = None
    num_samples: int | None = None
