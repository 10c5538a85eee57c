"""Trials as jobs of a cluster's own scheduler: Slurm by submitit, or Ray. The results folder is shared by all nodes."""
