"""Where samples come from: folders, lists of files and WebDataset shards."""

from maskpre.data.sources.base import PICTURES, VIDEOS, BadSampleError, Media, RawSample, Source
from maskpre.data.sources.folder import FolderLabels, FolderSource
from maskpre.data.sources.listing import ListSource
from maskpre.data.sources.shards import OnError, ShardSource

__all__ = [
    "PICTURES",
    "VIDEOS",
    "BadSampleError",
    "FolderLabels",
    "FolderSource",
    "ListSource",
    "Media",
    "OnError",
    "RawSample",
    "ShardSource",
    "Source",
]
