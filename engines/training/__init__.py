"""Training of a bundle's three networks (the `train` extra): data, losses, presets, quantisation, evaluation."""
