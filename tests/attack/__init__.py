"""Attacks on whole commands, in processes of their own: kills, signals, and machines that lack what others have.

``python -m tests.attack`` runs all of them, bounded by counts (about half an hour on two cores), and prints a table.
``tests/crash/test_attack.py`` runs a small part with the other tests.
"""
