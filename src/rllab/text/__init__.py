"""Language models: creation and loading, chat formats, packed batches, a native forward pass, and a sampler."""
