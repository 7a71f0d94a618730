"""The kinds of video data a config can name."""

from dataclasses import dataclass

from maskpre.data.demo_video import ensure_demo_video
from maskpre.data.local_shards import LocalShards
from maskpre.data.module import Split
from maskpre.data.rendered import cache_folder
from maskpre.data.sources import VIDEOS, FolderLabels, FolderSource, ListSource, ShardSource, Source
from maskpre.data.video_data import VideoData


@dataclass(kw_only=True, eq=False, repr=False)
class VideoFolderData(VideoData):
    """Video files in a folder at any depth, or those that a list names.

    Args:
        root: the folder. files: a list of them, see ListSource; None takes all.
        val_root, val_files: those of the val split; None and None for none. A list alone is relative to
            `root`.
        labels: "auto", "folders" (first-level folders are the classes) or "none"; without lists.
        separator: between a path and its class number in the lists.
    """

    root: str
    files: str | None = None
    val_root: str | None = None
    val_files: str | None = None
    labels: FolderLabels = "auto"
    separator: str = ","

    def make_source(self, split: Split) -> Source | None:
        """The folder or list of `split`."""
        if split == "train":
            return self._open_source(self.root, self.files, None)
        if self.val_root is None and self.val_files is None:
            return None
        return self._open_source(self.val_root or self.root, self.val_files, self.source("train").classes)

    def _open_source(self, root: str, files: str | None, classes: tuple[str, ...] | None) -> Source:
        if files is not None:
            return ListSource(
                files=files, root=root, separator=self.separator, classes=classes or None, media=VIDEOS
            )
        return FolderSource(root=root, labels=self.labels, classes=classes or None, media=VIDEOS)


@dataclass(kw_only=True, eq=False, repr=False)
class VideoShardsData(LocalShards, VideoData):
    """Shards of encoded video; see `LocalShards`."""

    media = VIDEOS
    if_remote = "copy its shards to a local or mounted disk"


@dataclass(kw_only=True, eq=False, repr=False)
class DemoVideoData(VideoData):
    """The built-in clips of ten motions, rendered into `cache_dir` at the first use.

    Args:
        cache_dir: where the shards are kept; None for `default_cache_dir`.
        num_train, num_val: how many clips.
        scene_seed: of the scenes; independent of the run's `seed`.
    """

    cache_dir: str | None = None
    num_train: int = 4000
    num_val: int = 1000
    scene_seed: int = 0

    def make_source(self, split: Split) -> Source:
        """The shards of `split`, rendered if they are not there."""
        cache_dir = cache_folder(self.cache_dir)
        folder = ensure_demo_video(
            cache_dir,
            image_size=self.image_size,
            num_frames=self.num_frames * self.frame_stride,
            num_train=self.num_train,
            num_test=self.num_val,
            seed=self.scene_seed,
        )
        name = "train" if split == "train" else "test"
        return ShardSource(
            shards=f"{folder}/{name}-*.tar", cache_dir=cache_dir, on_error=self.on_error, media=VIDEOS
        )
