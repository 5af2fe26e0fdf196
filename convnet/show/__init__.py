"""Pictures of nets and runs, one file each; tools/show.py is their command line.

`opened` finds what a command line names, `style` is how pictures look and how they are written.
"""
