"""Read images of any format into arrays of one form, and write masks in the source's geometry."""
