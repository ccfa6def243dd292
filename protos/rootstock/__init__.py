"""The wire's packages."""
