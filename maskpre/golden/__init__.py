"""Replaying what official implementations computed: golden cases, their kinds, and the comparison."""
