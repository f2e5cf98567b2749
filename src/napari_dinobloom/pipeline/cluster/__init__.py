"""The parallel parts of a run on `dask.distributed`: processes of this machine, a scheduler that is there, or SLURM."""
