"""What a coordinator may draw from a lab: which questions, how much a day, and a ledger of it."""
