"""Pictures or video in, uint8 batches out."""

from maskpre.data.kinds import DemoData, FolderData, ImageNetData, WebDatasetData
from maskpre.data.module import PretrainData
from maskpre.data.remote import RemoteData
from maskpre.data.video_data import VideoData
from maskpre.data.video_kinds import DemoVideoData, VideoFolderData, VideoShardsData

__all__ = [
    "DemoData",
    "DemoVideoData",
    "FolderData",
    "ImageNetData",
    "PretrainData",
    "RemoteData",
    "VideoData",
    "VideoFolderData",
    "VideoShardsData",
    "WebDatasetData",
]
