"""The checks behind `savedmodels.verify`, a module each."""
