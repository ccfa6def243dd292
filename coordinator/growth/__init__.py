"""Pure decisions: which operation, acceptance, the next net version."""
