"""Everything that touches the coordinator: calls, uploads, the watch stream."""
