"""Hostile and broken input by the thousand, without pytest: ``python -m tests.fuzz --count 20000``.

An input is a small valid folder (``seeds``) with seeded damage (``mutate``, ``formats``), given to the functions that
the commands call (``targets``) while ``guard`` watches time, memory, writes, processes and connections. Allowed are
success and one of our errors with a message of one printable line; anything else is a finding, kept as a JSON file.
What once broke lies in ``corpus``, in the same form, and is replayed by ``tests/unit/test_fuzz_corpus.py``.
"""
