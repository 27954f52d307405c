"""The command line `sessionpools`."""
