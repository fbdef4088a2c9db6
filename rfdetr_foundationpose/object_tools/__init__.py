"""From a thing on the table to an entry of objects.yaml: checks of a mesh, its symmetries, pictures, and scanning."""
