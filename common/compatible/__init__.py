"""Makes independently trained nets fit together before any adapter (paper 004; METHODS 4)."""
