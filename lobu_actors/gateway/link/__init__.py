"""The gateway over a link: between two supervisors, or an edge process and its supervisor."""
