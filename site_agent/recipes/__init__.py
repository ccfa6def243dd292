"""Ways to train a teacher net."""
