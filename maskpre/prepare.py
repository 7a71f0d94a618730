"""Pictures or video into shards: `python -m maskpre.prepare src=FOLDER dst=SHARDS`."""

import json

from hydra.utils import instantiate
from omegaconf import DictConfig

from maskpre.config import command
from maskpre.data.packing import Packing


@command("prepare")
def main(cfg: DictConfig) -> None:
    """Pack what the configuration describes and print how to train on it."""
    packing: Packing = instantiate(cfg, _target_="maskpre.data.packing.Packing")
    manifest = packing.run()
    split = json.loads(manifest.read_text(encoding="utf-8"))["splits"][packing.name]
    files = "pictures" if packing.media == "pictures" else "videos"
    print(f"{split['count']} {files} in {len(split['shards'])} shards, {len(split['bad'])} left out")
    print(f"described in {manifest}; train on them with")
    kind = "webdataset" if packing.media == "pictures" else "video_shards"
    print(f"  data={kind} \"data.shards='{manifest.parent}/{packing.name}-*.tar'\"")
    if "mean" in split:
        print(f'  "data.mean={split["mean"]}" "data.std={split["std"]}"')


if __name__ == "__main__":
    main()
