"""What a conversion makes and a device runs: the manifest, the golden vectors, the folder that holds them."""
