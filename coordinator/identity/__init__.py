"""Who may call: the net's certificate authority, invitations, certificates, revocation."""
