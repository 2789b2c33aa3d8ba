"""Tables, figures and self-contained pages: how reports of data and of models are shown."""
