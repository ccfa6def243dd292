"""The documents that labs train under: the plan and auxiliary heads."""
