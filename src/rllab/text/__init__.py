"""Language models: made or loaded, their chat formats, packed batches, a forward pass of our own, and a sampler."""
