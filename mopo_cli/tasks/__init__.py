"""Tasks: when their episodes end, what they pay, and how they truly move."""
