"""The command line: one module per sub-command, mounted lazily by ``cli.main``.

A module offers a plain function with a typer signature (``Annotated[..., typer.Option(...)]``) or a ``typer.Typer``;
its ``module:attribute`` stands in the table of ``cli.main``, so that ``--help`` stays fast and a missing optional
package breaks only its own command.
"""
