"""Repeats NetTailor: one backbone, tailored to tasks of different difficulty."""
