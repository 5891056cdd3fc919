"""What is measured: one file a family, one interface (``base``), one place that scores an image (``scorer``)."""
