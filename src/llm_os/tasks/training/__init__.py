"""Training methods: one file each (full, lora), and the loop they share."""
