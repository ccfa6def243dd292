"""Both sides share this package, which imports neither the lab's nor the coordinator's."""
