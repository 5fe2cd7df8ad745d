"""What is right and wrong with an installation and its machine: checks by topic, to be run all or by name.

The checks see the machine through a `Visit`. What talks to llama.cpp runs in child processes, so that a
binding that can't be loaded, or that ends its process, is a finding and not an end.
"""
