"""Learning What and Where to Transfer repeated (METHODS 2): L2T-ww beside its baselines."""
