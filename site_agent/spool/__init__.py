"""What is trained or measured and not yet acknowledged by the coordinator."""
