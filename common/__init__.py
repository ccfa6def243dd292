"""What a lab and the coordinator share; imports neither."""
