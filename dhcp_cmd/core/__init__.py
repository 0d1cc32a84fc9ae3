"""Pure decisions of the CMD: no socket, clock, randomness or database. State and time in, decisions out."""
