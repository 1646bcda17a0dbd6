"""A trained model put to use: opened again, as an extractor of features, as an exported graph."""
