"""Evaluation requests: candidates are measured and refined on private images."""
