"""How work is run: device, maps over many inputs, training, run record."""
