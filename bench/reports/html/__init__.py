"""The report that people look at: a folder (or one file) that opens by double click, without server or network.

``content`` says what a report is; ``runs``, ``dataset`` and ``gate`` make one of runs, of a dataset, and of what a gate
found; ``write`` puts it on the disk. Numbers come from the other reports (``table``, ``compare``, ``gate``,
``figures``); pictures are the 8-bit pixels that metrics looked at.
"""
