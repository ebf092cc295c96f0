"""What a person runs: training from the command line, data sets and presets."""
