"""Fused masked attention in Triton: tokens of all samples one after another, scores never stored.

`launch` is the way in. Importing this package imports nothing; importing `launch` needs Triton.
"""
