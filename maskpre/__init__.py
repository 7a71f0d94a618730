"""Masked self-supervised pretraining of vision models, composed from configs."""
