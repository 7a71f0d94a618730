"""Composing, checking and running configurations."""

from maskpre.config.command import command
from maskpre.config.compose import CONFIG_DIR, compose

__all__ = ["CONFIG_DIR", "command", "compose"]
