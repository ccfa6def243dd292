"""Those who are invited, and the coordinator."""
