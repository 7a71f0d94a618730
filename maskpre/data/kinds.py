"""The kinds of picture data a config can name."""

from dataclasses import dataclass
from pathlib import Path

from maskpre.data.demo import ensure_demo
from maskpre.data.local_shards import LocalShards
from maskpre.data.picture_data import PictureData
from maskpre.data.rendered_data import RenderedData
from maskpre.data.sources import PICTURES, FolderLabels, FolderSource, Source
from maskpre.data.splits import Split


@dataclass(kw_only=True, eq=False, repr=False)
class FolderData(PictureData):
    """Pictures in a folder at any depth; see FolderSource for `labels`.

    Args:
        root: the folder.
        val_root: folder of the val split, with the classes of `root`; None for none.
        labels: "auto", "folders" (first-level folders are the classes) or "none".
    """

    root: str
    val_root: str | None = None
    labels: FolderLabels = "auto"

    def make_source(self, split: Split) -> Source | None:
        """The folder of `split`."""
        if split == "train":
            return FolderSource(root=self.root, labels=self.labels)
        if self.val_root is None:
            return None
        classes = self.source("train").classes
        return FolderSource(root=self.val_root, labels=self.labels, classes=classes or None)


@dataclass(kw_only=True, eq=False, repr=False)
class ImageNetData(PictureData):
    """ImageNet's layout: root/train and root/val, each with one folder per class."""

    root: str

    def make_source(self, split: Split) -> Source:
        """The folder of `split`."""
        classes = self.source("train").classes if split == "val" else None
        return FolderSource(root=Path(self.root) / split, labels="folders", classes=classes)


@dataclass(kw_only=True, eq=False, repr=False)
class WebDatasetData(LocalShards, PictureData):
    """Shards of pictures; see `LocalShards`."""

    media = PICTURES
    if_remote = "use data=remote"


@dataclass(kw_only=True, eq=False, repr=False)
class DemoData(RenderedData, PictureData):
    """The built-in scenes, 20 classes of shape x pattern; see `RenderedData`."""

    media = PICTURES

    num_train: int = 20000
    num_val: int = 4000

    def ensure(self, cache_dir: Path) -> Path:
        """See `ensure_demo`."""
        return ensure_demo(
            cache_dir,
            image_size=self.image_size,
            num_train=self.num_train,
            num_test=self.num_val,
            seed=self.scene_seed,
        )
