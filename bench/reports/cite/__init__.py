"""What a paper must say of runs: how they were made, with what, under which licences, and whose work that is."""
