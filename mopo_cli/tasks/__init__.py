"""What is known of a task beyond its data."""
