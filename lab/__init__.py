"""A mobility domain in network namespaces: what the demo and the tests that need root run in.

One core router, one CMD, three MAARs, two correspondent nodes and a mobile node that is re-plugged between the MAARs'
access links. `topology` builds it, `daemons` and `host` start what is under test, `capture` sees every packet on every
link, `flows` makes traffic, `scenario` is the main job and its assertions, `demo` tells it to a person.
"""
