"""Ways to find an adapter: closed form, channel matching, back-distillation."""
