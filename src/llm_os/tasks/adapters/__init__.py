"""What is done with adapters that were trained and saved alone."""
