"""Captions that a vision-language model writes once, under stated rules, and that a run then only reads.

``prompt`` has what is asked, ``pictures`` what is shown, ``endpoint`` and ``local`` ask, ``checks`` judges the answers,
``make`` is the loop that freezes a file of them, and ``worth`` says what such a file is worth to a model.
"""
