"""The database: sites, submissions, merges, net versions."""
