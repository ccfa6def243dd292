"""What in the store is still needed, and the deletion of the rest."""
