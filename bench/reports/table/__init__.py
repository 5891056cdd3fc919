"""Tables of finished runs: data until the last moment (``build``), then Markdown, LaTeX, CSV or JSON (``write``)."""
