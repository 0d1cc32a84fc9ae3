"""The fault run: nodes that move at random while PBUs and PBAs are lost, repeated and overtake each other.

Every source of chance is drawn from one seed. What the kernels hold in the end is compared with where the nodes are and
what they were told, not with what a program says of itself.
"""
