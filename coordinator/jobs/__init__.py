"""Back-distillation on Ray; the only room that imports Ray."""
