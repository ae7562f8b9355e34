"""Memory, disk and time of a training run in closed form: what `tools plan` prints before a machine is paid for."""
