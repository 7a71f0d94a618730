"""What the ranks that torchrun has started can tell each other before training begins."""

import os
from datetime import timedelta

from torch.distributed import TCPStore  # type: ignore[attr-defined]

_PATIENCE = timedelta(minutes=10)


def said_by_first_rank(key: str, value: str) -> str:
    """The first rank's `value` on all ranks that torchrun has started; elsewhere the own one.

    What was said under a key holds for the whole launch, also when torchrun starts its ranks again.
    """
    env = os.environ
    if env.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return value
    store = TCPStore(env["MASTER_ADDR"], int(env["MASTER_PORT"]), is_master=False, timeout=_PATIENCE)
    if env["RANK"] == "0":
        return store.compare_set(f"maskpre/{key}", "", value).decode()
    return store.get(f"maskpre/{key}").decode()
