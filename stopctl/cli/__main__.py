"""`python -m stopctl.cli`: the `stopctl` command of this very interpreter."""

from stopctl.cli import main

main()
