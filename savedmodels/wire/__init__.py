"""What a server of SavedModels and its clients share: signatures, arrays, batches and protos, without TensorFlow."""
