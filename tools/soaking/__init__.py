"""The parts of tools/soak.py: a training that is watched, killed, resumed and compared."""
