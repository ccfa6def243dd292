"""Growth: which operation a submission calls for, acceptance, the next net version. Pure."""
