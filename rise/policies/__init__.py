"""Who answers: the models behind the names of the command line."""
