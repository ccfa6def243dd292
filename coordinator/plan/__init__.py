"""What labs are told: the plan and auxiliary heads."""
