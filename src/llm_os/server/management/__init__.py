"""FastAPI over the kernel syscalls."""
