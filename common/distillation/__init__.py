"""Pure maths on tensors: adjoints, pseudo-gradients, solvers, losses, baselines."""
