"""Commands beside the daemon: adapt a net to another domain, rank source nets."""
