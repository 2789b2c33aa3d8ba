"""Reports of a trained model: how good it is, where it is wrong, what it goes by."""
