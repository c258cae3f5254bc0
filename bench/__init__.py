"""adaptbench: which way of adapting a language model should I use, with what evidence?"""

__version__ = "0.1.0"
