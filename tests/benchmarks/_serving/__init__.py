"""The parts of serving.py, which measures score.py and its peers on a real model."""
