"""Site agent and coordinator."""
