"""What documents look like: in a terminal, in Markdown, in LaTeX, and as data (CSV, JSON)."""
