"""What `ablate` plans, trains and prints."""
