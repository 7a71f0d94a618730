"""The kinds of video data a config can name."""

from dataclasses import dataclass
from pathlib import Path

from maskpre.data.demo_video import ensure_demo_video
from maskpre.data.local_shards import LocalShards
from maskpre.data.rendered_data import RenderedData
from maskpre.data.sources import VIDEOS, FolderLabels, FolderSource, ListSource, Source
from maskpre.data.splits import Split
from maskpre.data.video_data import VideoData
from maskpre.errors import UserError


@dataclass(kw_only=True, eq=False, repr=False)
class VideoFolderData(VideoData):
    """Video files in a folder at any depth, or those that a list names.

    Args:
        root: the folder; None for that of the list. files: a list of them, see ListSource; None takes all.
        val_root, val_files: those of the val split; None and None for none. A list alone is relative to
            `root`.
        labels: "auto", "folders" (first-level folders are the classes) or "none"; without lists.
        separator: between a path and its class number in the lists.
    """

    root: str | None = None
    files: str | None = None
    val_root: str | None = None
    val_files: str | None = None
    labels: FolderLabels = "auto"
    separator: str = ","

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.root is None and self.files is None:
            raise UserError("data.root or data.files must be set: a folder of videos, or a list of them")

    def make_source(self, split: Split) -> Source | None:
        """The folder or list of `split`."""
        if split == "train":
            return self._open_source(self.root, self.files, None)
        if self.val_root is None and self.val_files is None:
            return None
        return self._open_source(self.val_root or self.root, self.val_files, self.source("train").classes)

    def _open_source(self, root: str | None, files: str | None, classes: tuple[str, ...] | None) -> Source:
        if files is not None:
            folder = Path(files).expanduser().parent if root is None else root
            return ListSource(
                files=files, root=folder, separator=self.separator, classes=classes or None, media=VIDEOS
            )
        assert root is not None
        return FolderSource(root=root, labels=self.labels, classes=classes or None, media=VIDEOS)


@dataclass(kw_only=True, eq=False, repr=False)
class VideoShardsData(LocalShards, VideoData):
    """Shards of encoded video; see `LocalShards`."""

    media = VIDEOS
    if_remote = "copy its shards to a local or mounted disk"


@dataclass(kw_only=True, eq=False, repr=False)
class DemoVideoData(RenderedData, VideoData):
    """The built-in clips of ten motions; see `RenderedData`."""

    media = VIDEOS

    num_train: int = 4000
    num_val: int = 1000

    def ensure(self, cache_dir: Path) -> Path:
        """See `ensure_demo_video`."""
        return ensure_demo_video(
            cache_dir,
            image_size=self.image_size,
            num_frames=self.num_frames * self.frame_stride,
            num_train=self.num_train,
            num_test=self.num_val,
            seed=self.scene_seed,
        )
