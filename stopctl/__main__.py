"""`python -m stopctl`: the `stopctl` command of this very interpreter."""

from stopctl.cli import main

main()
