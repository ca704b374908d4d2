"""What a task means for a kind of model: heads, labels, metrics."""
