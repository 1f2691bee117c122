"""An output directory and the runs that write to it."""
