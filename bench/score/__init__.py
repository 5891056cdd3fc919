"""Scores of images that another program wrote: found by name, held against a folder or a dataset, one document out."""
