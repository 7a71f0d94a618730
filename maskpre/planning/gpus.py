"""GPUs by name: what their makers' data sheets say."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

GpuName = Literal[
    "v100-16", "v100-32", "rtx4090-24", "a100-40", "a100-80", "l40s-48", "h100-80", "h200-141", "b200-180"
]


@dataclass(frozen=True)
class Gpu:
    """Memory in GB (1e9 bytes), and the peak of dense matrix products in TFLOP/s (1e12 per second).

    `half` is for bfloat16 (float16 where there is none), `single` for float32, with TF32 where there is any.
    `link` is what one GPU can exchange with its node's others, in GB/s and one direction.
    """

    memory: float
    half: float
    single: float
    link: float


GPUS: Mapping[GpuName, Gpu] = {
    "v100-16": Gpu(memory=17.2, half=125, single=15.7, link=150),
    "v100-32": Gpu(memory=34.4, half=125, single=15.7, link=150),
    "rtx4090-24": Gpu(memory=25.8, half=165, single=82.6, link=32),
    "a100-40": Gpu(memory=42.9, half=312, single=156, link=300),
    "a100-80": Gpu(memory=85.9, half=312, single=156, link=300),
    "l40s-48": Gpu(memory=51.5, half=362, single=183, link=32),
    "h100-80": Gpu(memory=85.9, half=989, single=494, link=450),
    "h200-141": Gpu(memory=141.0, half=989, single=494, link=450),
    "b200-180": Gpu(memory=180.0, half=2250, single=1100, link=900),
}

assert set(GPUS) == set(get_args(GpuName))
