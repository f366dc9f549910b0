"""What the hardware allows, measured on it."""
