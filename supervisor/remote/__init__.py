"""Workers on other machines: a supervisor's side of their links, and the runner's."""
