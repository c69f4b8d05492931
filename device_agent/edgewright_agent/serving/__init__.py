"""The inference API of a device: the Open Inference Protocol v2 over REST, on a Unix socket and on loopback."""
