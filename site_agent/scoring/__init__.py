"""Scoring nets on a lab's images: forward passes in batches, counts of what they get right."""
