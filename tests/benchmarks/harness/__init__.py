"""What every measurement shares: processes, cached nets, goals, intervals, the results page."""
