"""Learning what and where to transfer (Jang et al., 2019; METHODS 2): pure maths on tensors."""
