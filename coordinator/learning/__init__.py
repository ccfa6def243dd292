"""Learning on the operator's own samples: task modules, further joins, founding the net."""
