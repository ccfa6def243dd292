"""What others see of the present code, as lines that can be recorded and compared."""
