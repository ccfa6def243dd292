"""What the system itself costs: growth, the wire, the solvers."""
