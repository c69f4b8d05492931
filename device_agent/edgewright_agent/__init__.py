"""The process on the device: fetches what it should run, proves it, serves it, and says how it goes."""
