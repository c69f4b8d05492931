"""The fleet measured: simulated devices that speak the real protocol over a real broker."""
