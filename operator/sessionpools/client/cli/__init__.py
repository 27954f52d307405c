"""The command line `sessionpools`: typer reads what is asked, the client does it, show.py writes what came of it.

Exit codes, as main.py gives them: 0 done; 1 refused or failed; 2 wrong use, nothing was sent; 3 not logged in, or not
allowed; 4 there is no such thing; 5 what was waited for has not come; 6 no answer; 130 interrupted.
"""
