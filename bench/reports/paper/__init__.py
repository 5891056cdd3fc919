"""A paper's tables against our runs: what it claims and leaves open (``paper``), what that is worth (``build``), and
the ledger as Markdown, LaTeX, CSV or JSON (``write``)."""
