"""Tables of finished runs, methods and tasks."""
