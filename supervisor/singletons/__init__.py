"""What runs once in the whole cluster: the scheduler of watchers, and the pollers of chat platforms."""
