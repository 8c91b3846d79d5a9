"""The `lobu` command line: one module per subcommand, loaded by `main` only when it is used."""
