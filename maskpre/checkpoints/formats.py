"""What a model can be exported as."""

from typing import Literal

ExportFormat = Literal["timm", "full", "mae", "video"]
