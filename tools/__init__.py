"""For people: see and craft the messages. Nothing here is imported by the daemons."""
