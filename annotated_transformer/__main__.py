"""`python -m annotated_transformer` is the command `annotated-transformer`."""

from annotated_transformer.terminal import one_line_errors


def main() -> None:
    """Run the command line; bad input exits with 2 and one line on stderr."""
    with one_line_errors():  # Ctrl-C may come in the seconds that PyTorch takes to load
        from annotated_transformer.cli import app

        app()


if __name__ == "__main__":
    main()
