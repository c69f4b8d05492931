"""Data from the field: samples that devices sent, joined with labels, frozen as a data set, read for training."""
