"""Where samples come from: folders of pictures and WebDataset shards."""

from maskpre.data.sources.base import BadSampleError, RawSample, Source
from maskpre.data.sources.folder import FolderLabels, FolderSource
from maskpre.data.sources.shards import OnError, ShardSource

__all__ = ["BadSampleError", "FolderLabels", "FolderSource", "OnError", "RawSample", "ShardSource", "Source"]
