"""Convolutional networks on what a plan leaves visible."""
