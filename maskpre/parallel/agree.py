"""One value for all ranks, before they have met."""

import os
from collections.abc import Callable

from torch.distributed.rendezvous import rendezvous


def agreed(key: str, make: Callable[[], str]) -> str:
    """What the first rank makes, on every rank that torchrun has started; without torchrun, one's own.

    `key` names the value: within a job, the same key stands for the same value.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or os.environ.get("WORLD_SIZE", "1") == "1":
        return make()
    store, rank, _ = next(rendezvous("env://"))
    name = f"maskpre/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{key}"
    if rank == 0:
        store.set(name, make())
    return store.get(name).decode()
