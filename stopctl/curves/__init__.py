"""Recorded curves of any tool: read, replayed, and rules chosen by them."""
