"""Image files of every kind, read into arrays of one form and written back in the source's geometry."""
