"""What an edge asks of a supervisor, and the live view of a conversation that it gets back."""
