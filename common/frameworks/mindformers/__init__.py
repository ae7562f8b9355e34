"""What the MindFormers recipes share: starting, configuring, training, checkpoints, loss, generation, adapters.

Runs in the recipes' own environment (mindspore, mindformers, numpy, yaml); there is no torch.
"""
