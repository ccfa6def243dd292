"""Pseudo-gradients D' (Network Transplanting, Eq. 4b): adjoint rules, draws, pools of draws."""
