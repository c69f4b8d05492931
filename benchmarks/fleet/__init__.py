"""The fleet measured: processor time and memory for each device, with real brokers and the real protocol."""
