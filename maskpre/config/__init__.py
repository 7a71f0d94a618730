"""Composing, checking and running configurations."""

from maskpre.config.command import command
from maskpre.config.compose import compose
from maskpre.config.library import CONFIG_DIR
from maskpre.config.validate import validate

__all__ = ["CONFIG_DIR", "command", "compose", "validate"]
