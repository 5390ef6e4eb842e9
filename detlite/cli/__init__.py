"""The commands of detlite: a module parses a command line, the one beside it does the work.

``train.py``, ``visualize.py`` and ``evaluate.py`` import nothing heavy, so that ``--help`` and a
wrong command line are answered at once; their ``main`` imports ``training.py``, ``drawing.py`` or
``scoring.py``, and with it torch, when the command line is known to be right. This is, beside
optional dependencies, the one reason for an import within a function.
"""
