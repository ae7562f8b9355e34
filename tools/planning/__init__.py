"""`tools plan`: what a run takes, before a machine is paid for."""
