"""Load, save and run models; used by workers and tasks; knows nothing of jobs or deployments."""
