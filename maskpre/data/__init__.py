"""Pictures in, uint8 batches out."""

from maskpre.data.kinds import DemoData, FolderData, ImageNetData, WebDatasetData
from maskpre.data.module import PretrainData
from maskpre.data.remote import RemoteData

__all__ = ["DemoData", "FolderData", "ImageNetData", "PretrainData", "RemoteData", "WebDatasetData"]
